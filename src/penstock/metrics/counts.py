"""What a process has run, by task and by how it ended; how long that took. All only grows."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable

import msgspec
from msgspec import Struct

BOUNDS = (0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram in seconds; what is longer is in one more."""
MOST = 100
"""Tasks that are counted apart, those that come first."""
OTHERS = "(others)"
ENDS = ("succeeded", "failed", "retried", "snoozed", "replaced", "ignored", "rejected", "revoked", "expired")
"""How a delivery may end: the last without a run."""


class Counted(Struct, array_like=True):
    """Of one task. `ends` are counts by `ENDS`. The histogram is of samples, each weighted by how many tasks it stands
    for: counts by `BOUNDS`, and their seconds."""

    ends: list[int] = msgspec.field(default_factory=lambda: [0] * len(ENDS))
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def merge(self, other: Counted) -> None:
        self.ends = [one + more for one, more in zip(self.ends, other.ends, strict=True)]
        self.buckets = [one + more for one, more in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


class Successes(dict[str, list[int]]):
    """Task → how many runs have succeeded, as one cell. Only one thread writes, so that it needs no lock; any may
    read."""

    def __missing__(self, task: str) -> list[int]:
        name = task if len(self) < MOST else OTHERS
        if name not in self:
            self[name] = [0]
        return self[name]


class Counts:
    """From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Counted] = {}
        self._successes: list[Successes] = []

    def successes(self) -> Successes:
        """For one thread to count in."""
        made = Successes()
        self._successes.append(made)
        return made

    def ended(self, task: str, how: str, number: int = 1) -> None:
        """`task` is the name of a registered one: what strangers publish must not make names."""
        with self._lock:
            self._of(task).ends[ENDS.index(how)] += number

    def took(self, fresh: Iterable[tuple[str, str, float, float]]) -> None:
        """(queue, task, seconds, how many it stands for), as they are sampled."""
        with self._lock:
            for _, task, seconds, weight in fresh:
                counted = self._of(task)
                counted.buckets[bisect_left(BOUNDS, seconds)] += int(weight)
                counted.seconds += seconds * weight

    def read(self) -> dict[str, Counted]:
        """A copy."""
        succeeded = [(task, cell[0]) for successes in self._successes for task, cell in list(successes.items())]
        with self._lock:
            for task, _ in succeeded:
                self._of(task)
            found = {task: Counted(one.ends[:], one.buckets[:], one.seconds) for task, one in self._tasks.items()}
        for task, number in succeeded:
            found[task if task in found else OTHERS].ends[0] += number
        return found

    def _of(self, task: str) -> Counted:
        found = self._tasks.get(task)
        if found is None:
            found = self._tasks.setdefault(task if len(self._tasks) < MOST else OTHERS, Counted())
        return found


def summed(many: Iterable[dict[str, Counted]]) -> dict[str, Counted]:
    """Of many processes together."""
    found: dict[str, Counted] = {}
    for tasks in many:
        for task, counted in tasks.items():
            known = task in found or len(found) < MOST
            found.setdefault(task if known else OTHERS, Counted()).merge(counted)
    return found
