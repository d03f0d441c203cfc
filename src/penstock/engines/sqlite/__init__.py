"""The embedded engine: one SQLite file, no server. See docs/design.md and docs/reference/schema.md."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.clock import Clock
from penstock.engine import Engine
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.settings import read_settings
from penstock.queue import Queue


def open_engine(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    durability: str = "power",
    result_expires: float = 86_400.0,
    result_max_bytes: int = 1 << 30,
) -> Engine:
    """Open (or create) the database of `sqlite:////absolute/path.db`.

    `queues` are declared with their bounds when they are first used; `result_expires` is in seconds. Raises
    `ConfigError` for a bad URL, `StoreError` for a file that cannot be used.
    """
    return SqliteEngine(
        read_settings(
            url,
            clock=clock,
            queues=queues,
            durability=durability,
            result_expires=result_expires,
            result_max_bytes=result_max_bytes,
        )
    )
