"""Ends a child that was stopped while it holds the store's lock: nobody can go on before it is gone.

A thread of its own, because the supervisor itself may be waiting for that lock, to renew or to take back leases. It
takes no lock and calls no engine but for the holder's name, so that nothing of it can be in a fork's way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from penstock.engine import Engine
from penstock.worker.child import Child

TICK = 0.5
"""Seconds between two looks."""

log = logging.getLogger("penstock.worker")


class Rescue:
    def __init__(self, engine: Engine, children: Callable[[int], Child | None]) -> None:
        """`children` finds the child that has a process id."""
        self._engine = engine
        self._children = children
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._main, name="penstock-rescue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; returns when it has ended."""
        self._closed.set()
        self._thread.join()

    def _main(self) -> None:
        while not self._closed.wait(TICK):
            writer = self._engine.writer_pid()
            holder = self._children(writer) if writer is not None else None
            if holder is not None and holder.stopped():
                log.error(
                    "%s is stopped while it holds the store's lock, which holds up everybody: killing it", holder.name
                )
                holder.kill()
