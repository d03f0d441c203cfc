"""What the store remembers: tasks, queues with their lanes, and what is left of tasks that ended."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from penstock.message import HIGHEST, Unique
from penstock.outcome import Progress
from penstock.queue import Queue


class Place(Enum):
    """Where a task is; together they are the queue's depth."""

    READY = "ready"
    LEASED = "leased"
    DELAYED = "delayed"


@dataclass(slots=True, eq=False)
class Task:
    """A task from its acceptance to its end. `data` is the packed message, as a server would store it."""

    id: str
    name: str
    namespace: str
    queue: str
    priority: int
    partition: str
    data: bytes
    accepted: float
    order: int
    """Its place in its lane; kept when it comes back unfinished."""
    place: Place = Place.READY
    due: float | None = None
    attempts: int = 0
    retries: int = 0
    retried: bool = False
    token: int = 0
    worker: str = ""
    until: float = 0.0
    """The lease: who has it, and until when."""
    revoked: bool = False
    terminate: bool = False
    uniques: tuple[Unique, ...] = ()
    progress: Progress | None = None

    @property
    def receipt(self) -> tuple[int, str]:
        return (self.token, self.id)


class Lane:
    """The ready tasks of one priority of one queue: partitions take turns, each first in first out."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[int, str]]] = {}
        self._turns: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, task: Task) -> None:
        if task.partition not in self._waiting:
            self._waiting[task.partition] = []
            self._turns.append(task.partition)
        heapq.heappush(self._waiting[task.partition], (task.order, task.id))

    def first(self) -> str:
        """The id of the task whose turn it is."""
        return self._waiting[self._turns[0]][0][1]

    def take(self) -> None:
        """Remove the first; the next partition has its turn."""
        partition = self._turns[0]
        heapq.heappop(self._waiting[partition])
        self._turns.rotate(-1)
        self._drop_if_empty(partition)

    def remove(self, task: Task) -> None:
        waiting = self._waiting[task.partition]
        waiting.remove((task.order, task.id))
        heapq.heapify(waiting)
        self._drop_if_empty(task.partition)

    def _drop_if_empty(self, partition: str) -> None:
        if not self._waiting[partition]:
            del self._waiting[partition]
            self._turns.remove(partition)


@dataclass(slots=True, eq=False)
class Line:
    """A queue as it is: its bounds, its lanes by priority, and its counters."""

    declared: Queue
    namespace: str
    opened: float
    lanes: list[Lane] = field(default_factory=lambda: [Lane() for _ in range(HIGHEST + 1)])
    counts: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(Place, 0))
    bytes: int = 0
    enqueued: int = 0
    settled: int = 0
    paused: bool = False

    @property
    def depth(self) -> int:
        return sum(self.counts.values())

    def next_lane(self) -> Lane | None:
        """The lane to serve next: 9 first; none of a paused queue."""
        return None if self.paused else next((lane for lane in reversed(self.lanes) if lane), None)


@dataclass(slots=True, frozen=True)
class Letter:
    """A dead letter: the task as it was, and why it was given up."""

    task: Task
    reason: str
    died: float


@dataclass(slots=True)
class Gathering:
    """A join that is under way; `closed` is when its last member came, and what comes later is a repeat."""

    values: dict[int, bytes] = field(default_factory=dict)
    closed: float | None = None


@dataclass(slots=True, frozen=True)
class Hold:
    """A key, held by (or remembered for) the task `id`, until a time or for good."""

    id: str
    until: float | None = None

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass(slots=True)
class Lead:
    """A named lease with its fencing token."""

    holder: str = ""
    token: int = 0
    until: float = 0.0
