"""What a process has run, by task and by how it ended; how long that took. All only grows."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from penstock.pressure.samples import Note

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


class Named(Protocol):
    name: str


N = TypeVar("N", bound=Named)


class Place(Protocol[N]):
    """Where one task runs after the other; a slot of a worker."""

    task: N | None
    """What runs here, or did last."""
    succeeded: int
    """Its runs in a row that have. Only the thread that runs them counts, so that it needs no lock."""


class Counts:
    """From any thread."""

    def __init__(self, places: Sequence[Place[Any]] = ()) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._tasks: dict[str, Counted] = {}

    def turn(self, place: Place[N], task: N) -> None:
        """`task` is what runs there next: what has succeeded so far is counted."""
        with self._lock:
            if place.task is not None:
                self._of(place.task.name).ends[0] += place.succeeded
            place.task, place.succeeded = task, 0

    def ended(self, task: str, how: str, number: int = 1) -> None:
        """`task` is the name of a registered one: what strangers publish must not make names."""
        with self._lock:
            self._of(task).ends[ENDS.index(how)] += number

    def took(self, fresh: Iterable[Note]) -> None:
        """As runs are sampled."""
        with self._lock:
            for _, task, seconds, weight, _, _ in fresh:
                counted = self._of(task)
                counted.buckets[bisect_left(BOUNDS, seconds)] += int(weight)
                counted.seconds += seconds * weight

    def read(self) -> dict[str, Counted]:
        """A copy."""
        with self._lock:
            running = [(place.task.name, place.succeeded) for place in self._places if place.task is not None]
            for task, _ in running:
                self._of(task)
            found = {task: Counted(one.ends[:], one.buckets[:], one.seconds) for task, one in self._tasks.items()}
        for task, number in running:
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
