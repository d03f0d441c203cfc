"""A call that is not made yet: a task's name, its arguments and options, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Signature(Struct, frozen=True):
    """What `task.s(…)` returns: pass it on, and publish it by `task.delay_many([…])` or `app.send(…)`.

    `options` are those of `apply_async`.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
