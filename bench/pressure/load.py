"""What became of the calls of a load, from the notes of callers and tasks. Pure, but for reading them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from bench.measure import percentile
from bench.pressure.offer import ACCEPTED, CALL, FAILED, REFUSED
from penstock.draining import MIN_RETRY

OFF = 0.5
"""A part of the truth: what a `retry_after` may be off by."""
WINDOW, STEP = 1.0, 0.1
"""Seconds of calls whose p99 is looked at, and from one such look to the next."""


class Call(NamedTuple):
    """As `offer.CALL` has it."""

    number: int
    count: int
    outcome: int
    leaving: int
    due: float
    sent: float
    answered: float
    retry_after: float


class Task(NamedTuple):
    """One that was accepted. `ended` is infinite for one that has not."""

    due: float
    ended: float

    @property
    def took(self) -> float:
        return self.ended - self.due


class Load:
    def __init__(self, calls: Iterable[Call], ends: Iterable[tuple[int, float, float]]) -> None:
        """`ends` are (number, began, ended)."""
        self.calls = sorted(calls, key=lambda call: call.due)
        runs = list(ends)
        first: dict[int, float] = {}
        for number, _, ended in runs:
            first.setdefault(number, ended)
        accepted = [call for call in self.calls if call.outcome == ACCEPTED]
        self.tasks = [
            Task(call.due, first.get(number, inf))
            for call in accepted
            for number in range(call.number, call.number + call.count)
        ]
        mine = {number for call in self.calls for number in range(call.number, call.number + call.count)}
        self.ended = sorted(ended for number, _, ended in runs if number in mine)
        self.repeated = sum(number in mine for number, _, _ in runs) - sum(number in mine for number in first)

    @property
    def lost(self) -> int:
        return sum(task.ended == inf for task in self.tasks)

    @property
    def failed(self) -> int:
        """Calls that were neither accepted nor refused as too many."""
        return sum(call.outcome == FAILED for call in self.calls)

    def rate(self, since: float, until: float) -> float:
        """Tasks that ended, a second."""
        return (bisect_left(self.ended, until) - bisect_left(self.ended, since)) / (until - since)

    def goodput(self, since: float, until: float, latency: float) -> float:
        """Those a second that ended in that time, and within `latency` of when they were due."""
        return sum(task.took <= latency and since <= task.ended < until for task in self.tasks) / (until - since)

    def in_time(self, since: float, until: float, latency: float) -> float:
        """Those a second that were due in that time, and ended within `latency` of it."""
        return sum(task.took <= latency for task in self._due(since, until)) / (until - since)

    def quantile(self, since: float, until: float, share: float) -> float:
        """Seconds from when a call was due to its end, of those that were accepted."""
        return percentile([task.took for task in self._due(since, until)] or [0.0], share)

    def refused(self, since: float, until: float) -> float:
        """A part of the calls."""
        made = [call for call in self.calls if since <= call.due < until]
        return sum(call.outcome == REFUSED for call in made) / max(1, len(made))

    def behind(self) -> float:
        """Seconds, p99: how much later than it was due a call was made. They count as waiting."""
        return percentile([call.sent - call.due for call in self.calls], 0.99)

    def took(self, outcome: int) -> float:
        """Median seconds of calls of one task that ended so."""
        return percentile(
            [call.answered - call.sent for call in self.calls if call.outcome == outcome and call.count == 1] or [0.0],
            0.5,
        )

    def recovery(self, end: float, until: float, usual: float) -> float:
        """Seconds after `end` from which on the calls of a second have a p99 of at most `usual`; infinite for never."""
        after = 0.0
        while end + after + WINDOW <= until:
            if self.quantile(end + after, end + after + WINDOW, 0.99) <= usual:
                return after
            after += STEP
        return inf

    def told(self, *, many: bool) -> list[tuple[float, float]]:
        """(`retry_after`, the truth) of refused calls of many tasks, or of one. The truth is how long it took from the
        answer on until so many tasks had ended that another try was worth while, and not less than `MIN_RETRY`."""
        found = []
        for call in self.calls:
            if call.outcome != REFUSED or (call.count > 1) != many:
                continue
            place = bisect_left(self.ended, call.answered) + call.leaving - 1
            if place < len(self.ended):
                found.append((call.retry_after, max(MIN_RETRY, self.ended[place] - call.answered)))
        return found

    def by_end(self, since: float, until: float, width: float) -> list[tuple[float, float]]:
        """(seconds after `since`, median seconds that those took which ended then)."""
        found: dict[int, list[float]] = {}
        for task in self.tasks:
            if since <= task.ended < until:
                found.setdefault(int((task.ended - since) / width), []).append(task.took)
        return [((slot + 0.5) * width, percentile(took, 0.5)) for slot, took in sorted(found.items())]

    def _due(self, since: float, until: float) -> list[Task]:
        return [task for task in self.tasks if since <= task.due < until]


def honest(told: Sequence[tuple[float, float]]) -> float:
    """Which part of them was told the truth, or near it."""
    return sum(abs(after - truth) <= OFF * truth for after, truth in told) / max(1, len(told))


def read_calls(path: Path) -> list[Call]:
    """What callers have noted."""
    return [Call(*fields) for fields in CALL.iter_unpack(path.read_bytes())]
