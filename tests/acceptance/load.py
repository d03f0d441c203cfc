"""A producer that goes on whatever happens: it repeats what failed, with the same ids, until it is answered."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from types import TracebackType

from penstock.errors import BrokerError, PublishError
from tests.acceptance.mill import Mill

PAUSE = 0.02
"""Seconds between two tries."""


class Load:
    """Publishes `batch` tasks, every `pace` seconds, from a thread of its own, while its `with` lasts."""

    def __init__(self, mill: Mill, first: int = 0, batch: int = 20, pace: float = 0.02) -> None:
        self.accepted_at: list[float] = []
        """`time.monotonic()` of each accepted publish."""
        self.errors: Counter[str] = Counter()
        """How often what was raised."""
        self.next = first
        self._mill = mill
        self._batch = batch
        self._pace = pace
        self._stopped = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed from error  # if the test failed, too, it did by that

    def longest_gap(self, since: float) -> float:
        """The longest time between two accepted publishes, in seconds, of which the later came after `since`
        (monotonic); infinite when none came."""
        times = list(self.accepted_at)
        gaps = [late - early for early, late in itertools.pairwise(times) if late >= since]
        return max(gaps, default=float("inf"))

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._publish(range(self.next, self.next + self._batch))
                self.next += self._batch
                self._stopped.wait(self._pace)
        except BaseException as error:  # told at the end of the `with`
            self._failed = error

    def _publish(self, numbers: range) -> None:
        while True:
            try:
                answers = self._mill.publish(self._mill.touch, numbers)
            except (BrokerError, PublishError) as error:
                self.errors[type(error).__name__] += 1
                if self._stopped.wait(PAUSE):
                    return
            else:
                refused = {type(answer).__name__ for answer in answers} - {"Accepted", "Duplicate"}
                if not refused:
                    self.accepted_at.append(time.monotonic())
                    return
                self.errors.update(refused)
                if self._stopped.wait(PAUSE):
                    return
