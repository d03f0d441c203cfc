"""What an embedded engine is opened with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from penstock.clock import Clock, SystemClock
from penstock.engines.sqlite.files import parse_url
from penstock.errors import ConfigError
from penstock.queue import Queue

Durability = Literal["power", "process"]


@dataclass(frozen=True)
class Settings:
    """`result_expires` in seconds, `result_max_bytes` in bytes. `sync` and `vfs` are for tests of power loss."""

    path: str
    clock: Clock
    queues: tuple[Queue, ...] = ()
    durability: Durability = "power"
    result_expires: float = 86_400.0
    result_max_bytes: int = 1 << 30
    sole: bool = False
    """Nobody else may have it open: for a broker."""
    sync: Callable[[int], None] = os.fdatasync
    vfs: str | None = None


def read_settings(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    durability: str = "power",
    result_expires: float = 86_400.0,
    result_max_bytes: int = 1 << 30,
) -> Settings:
    """The settings in `url` (`?durability=process`) over those given. Raises `ConfigError`."""
    path, options = parse_url(url)
    chosen = options.pop("durability", durability)
    if options:
        raise ConfigError(f"{url!r}: unknown option {', '.join(sorted(options))}; known: durability")
    if chosen not in (*get_args(Durability), "strict"):
        raise ConfigError(f"durability must be 'power', 'process' or 'strict', not {chosen!r}")
    level: Durability = "process" if chosen == "process" else "power"  # nothing to verify: we sync ourselves
    return Settings(path, clock or SystemClock(), tuple(queues), level, result_expires, result_max_bytes)
