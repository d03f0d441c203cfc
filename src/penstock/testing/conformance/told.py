"""A listener for results, as `Backend.subscribe` wants one, that a check can wait for."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from penstock.outcome import Report
from penstock.testing.conformance.expect import HANG, Violation


class Told:
    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._reports: list[Report] = []

    def __call__(self, reports: Sequence[Report]) -> None:
        with self._condition:
            self._reports += reports
            self._condition.notify_all()

    def wait(self, count: int = 1) -> list[Report]:
        """The reports that came, at least `count` of them."""
        with self._condition:
            if not self._condition.wait_for(lambda: len(self._reports) >= count, HANG):
                raise Violation(f"told of {len(self._reports)} results within {HANG} s, wanted {count}")
            return list(self._reports)

    def so_far(self) -> list[Report]:
        with self._condition:
            return list(self._reports)
