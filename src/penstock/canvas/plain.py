"""A canvas that was an argument of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.canvas.calls import Canvas, read_plain

if TYPE_CHECKING:
    from penstock.app import Penstock


def maybe_signature(data: Any, app: Penstock | None = None) -> Any:
    """A canvas of `app` from plain data, as a task's argument is one: data, whose tasks are names, and never code. A
    canvas that has an app is returned as it is, and so is `None`. Raises `ConfigError` for what is none."""
    if data is None or (isinstance(data, Canvas) and (app is None or data._find_app() is not None)):
        return data
    return read_plain(data.to_plain() if isinstance(data, Canvas) else data, app)
