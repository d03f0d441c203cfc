"""Results: write-once, bounded by age and bytes, told by push from a thread of their own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.backend import Notify
from penstock.clock import Clock
from penstock.engines.memory.streams import Streams
from penstock.engines.memory.teller import Teller
from penstock.outcome import Outcome, Report

RESULT_TTL = 24 * 3600.0
"""Seconds that a result is kept."""
RESULT_BYTES = 256 << 20
"""Bytes of results that are kept; the oldest go first."""


@dataclass(slots=True, frozen=True)
class Result:
    outcome: Outcome
    task: str | None
    queue: str | None
    stored: float
    bytes: int
    """Of the value, and of the parts that were published before it."""


class Listener:
    """One subscription: the keys that it still waits for."""

    def __init__(self, shelf: Shelf, keys: Sequence[str], notify: Notify) -> None:
        self._shelf = shelf
        self.keys = set(keys)
        self.notify = notify
        self.closed = False

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def tell(self, report: Report) -> None:
        if not self.closed:
            self.notify([report])

    def close(self) -> None:
        self.closed = True
        self._shelf.unsubscribe(self)


class Shelf:
    """Used under the store's lock."""

    def __init__(self, clock: Clock, ttl: float = RESULT_TTL, max_bytes: int = RESULT_BYTES) -> None:
        self._clock = clock
        self._ttl, self._max_bytes = ttl, max_bytes
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._bytes = 0
        self._listeners: dict[str, list[Listener]] = {}
        self._teller = Teller()
        self.streams = Streams(clock, ttl, self._teller)

    def get(self, task_id: str) -> Result | None:
        result = self._results.get(task_id)
        return None if result is None or self._is_old(result) else result

    def report(self, task_id: str) -> Report | None:
        """What is stored of a task, as a report; `None` when nothing is."""
        result = self.get(task_id)
        if result is None:
            return None
        outcome = result.outcome
        return Report(task_id, outcome.state, outcome, result.task, result.queue, outcome.retries)

    def store(self, task_id: str, outcome: Outcome, task: str | None, queue: str | None) -> bool:
        """Keep the first outcome of a task; `False` when it had one."""
        if self.get(task_id) is not None:
            return False
        self._drop(task_id)  # an old one, which would keep its early place otherwise
        size = len(outcome.value) + self.streams.size(task_id)
        self._results[task_id] = Result(outcome, task, queue, self._clock.time(), size)
        self._bytes += size
        self._bound()
        self.streams.tell(task_id)
        self._tell(Report(task_id, outcome.state, outcome, task, queue, outcome.retries))
        return True

    def forget(self, task_id: str) -> None:
        self._drop(task_id)
        self.streams.drop(task_id)

    def expire(self, runs: Callable[[str], bool]) -> None:
        """Drop what is old, but for parts of tasks that still run."""
        self._bound()
        self.streams.expire(lambda task_id: task_id in self._results or runs(task_id))

    def _bound(self) -> None:
        while self._results:
            task_id, oldest = next(iter(self._results.items()))
            if not self._is_old(oldest) and (self._bytes <= self._max_bytes or len(self._results) == 1):
                return
            self.forget(task_id)

    def _drop(self, task_id: str) -> None:
        result = self._results.pop(task_id, None)
        if result is not None:
            self._bytes -= result.bytes

    def subscribe(self, keys: Sequence[str], notify: Notify) -> Listener:
        listener = Listener(self, keys, notify)
        self._teller.start()
        for key in keys:
            report = self.report(key)
            if report is None:
                self._listeners.setdefault(key, []).append(listener)
            else:
                self._teller.tell(partial(listener.tell, report))
        return listener

    def unsubscribe(self, listener: Listener) -> None:
        for key in listener.keys:
            waiting = self._listeners.get(key, [])
            if listener in waiting:
                waiting.remove(listener)
                if not waiting:
                    del self._listeners[key]

    def close(self) -> None:
        self._teller.close()

    def _is_old(self, result: Result) -> bool:
        return self._clock.time() - result.stored >= self._ttl

    def _tell(self, report: Report) -> None:
        for listener in self._listeners.pop(report.id, ()):
            self._teller.tell(partial(listener.tell, report))
