"""The thread that tells who waits for results and parts, so that nobody is called under the store's lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Tell = Callable[[], None]


class Teller:
    """Calls what it is given, one after the other, on a thread that the first one who waits starts."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Tell | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="penstock-memory-results", daemon=True)
            self._thread.start()

    def tell(self, call: Tell) -> None:
        self._calls.put(call)

    def close(self) -> None:
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
