"""One thread that makes commits durable, so that the loop reads and commits meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

Sync = Callable[[], None]
Then = Callable[[BaseException | None], None]
"""Called on the loop when it is done; with the error when it failed."""


class Syncer:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wanted: queue.SimpleQueue[tuple[Sync, Then] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="penstock-sync", daemon=True)
        self._thread.start()

    def sync(self, sync: Sync, then: Then) -> None:
        self._wanted.put((sync, then))

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            sync, then = wanted
            error: BaseException | None = None
            try:
                sync()
            except BaseException as raised:
                error = raised
            self._loop.call_soon_threadsafe(then, error)

    def close(self) -> None:
        """After what is wanted already."""
        self._wanted.put(None)
        self._thread.join()
