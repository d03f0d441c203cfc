"""What the store remembers: tasks, queues with their lanes, and what is left of tasks that ended."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from penstock.limiting import Limiter
from penstock.message import HIGHEST, Limit, Unique
from penstock.outcome import Progress
from penstock.queue import Queue
from penstock.shedding import SHED_LOWEST


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
    """Since when it may start."""
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
    handed: bool = False
    """A worker had it, or somebody put it back from the dead letters."""
    uniques: tuple[Unique, ...] = ()
    limit: Limit | None = None
    expires: float | None = None
    let_go: float | None = None
    """When its limit let it go, while it is leased."""
    progress: Progress | None = None

    @property
    def receipt(self) -> tuple[int, str]:
        return (self.token, self.id)


class Limited:
    """The key of a limit, as long as it has tasks, or something to pay."""

    def __init__(self) -> None:
        self.limiter = Limiter()
        self.tasks = 0
        self.leased = 0


Head = tuple[int, str]
"""Order and id of the first waiting task of one limit (or of none) in one partition."""


class Lane:
    """The ready tasks of one priority of one queue: partitions take turns, each first in first out. Tasks with a limit
    wait beside those without, so that one that may not go yet holds up only its own key."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, list[Head]]] = {}
        self._turns: deque[str] = deque()

    def add(self, task: Task) -> None:
        if task.partition not in self._waiting:
            self._waiting[task.partition] = {}
            self._turns.append(task.partition)
        heapq.heappush(self._waiting[task.partition].setdefault(_key(task), []), (task.order, task.id))

    def first(self, may_go: Callable[[str], bool]) -> str | None:
        """The id of the task whose turn it is, among the heads whose ids `may_go`."""
        for partition in self._turns:
            heads = sorted(waiting[0] for waiting in self._waiting[partition].values())
            for _, task_id in heads:
                if may_go(task_id):
                    return task_id
        return None

    def heads(self) -> list[str]:
        """The ids of all that could go next."""
        return [waiting[0][1] for keys in self._waiting.values() for waiting in keys.values()]

    def take(self, task: Task) -> None:
        """Remove a head; the other partitions have their turn."""
        heapq.heappop(self._waiting[task.partition][_key(task)])
        self._turns.remove(task.partition)
        self._turns.append(task.partition)
        self._drop_if_empty(task)

    def remove(self, task: Task) -> None:
        waiting = self._waiting[task.partition][_key(task)]
        head = (task.order, task.id)
        if waiting[-1] == head:  # the newest, as a rule
            waiting.pop()
        elif waiting[0] == head:
            heapq.heappop(waiting)
        else:
            waiting.remove(head)
            heapq.heapify(waiting)
        self._drop_if_empty(task)

    def ids(self) -> list[str]:
        return [task_id for keys in self._waiting.values() for waiting in keys.values() for _, task_id in waiting]

    def _drop_if_empty(self, task: Task) -> None:
        keys = self._waiting[task.partition]
        if not keys[_key(task)]:
            del keys[_key(task)]
        if not keys:
            del self._waiting[task.partition]
            self._turns.remove(task.partition)


def _key(task: Task) -> str:
    return "" if task.limit is None else task.limit.key


class Candidates:
    """The tasks that a full queue may shed, who goes first first. A queue has this once it had to shed, as each that
    comes costs more then. Entries of what has gone otherwise stay until they come up."""

    def __init__(self, overflow: str, tasks: Iterable[Task]) -> None:
        self._lowest = overflow == SHED_LOWEST
        self._heap = [self._entry(task) for task in tasks]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, task: Task) -> None:
        heapq.heappush(self._heap, self._entry(task))

    def first(self, tasks: Mapping[str, Task]) -> Task | None:
        """Who goes first of those that wait, and that no worker had."""
        while self._heap:
            task = tasks.get(self._heap[0][-1])
            if task is not None and task.place is Place.READY and not task.handed:
                return task
            heapq.heappop(self._heap)
        return None

    def pop(self) -> None:
        heapq.heappop(self._heap)

    def _entry(self, task: Task) -> tuple[int, float, int, str]:
        if self._lowest:
            return (task.priority, -task.accepted, -task.order, task.id)
        return (0, task.accepted, task.order, task.id)


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
    shed: int = 0
    paused: bool = False
    candidates: Candidates | None = None

    @property
    def depth(self) -> int:
        return sum(self.counts.values())

    def first(self, may_go: Callable[[str], bool]) -> str | None:
        """The id of the task to hand out next: of 9 first; none of a paused queue."""
        firsts = () if self.paused else (lane.first(may_go) for lane in reversed(self.lanes))
        return next((task_id for task_id in firsts if task_id is not None), None)

    def heads(self) -> list[str]:
        return [] if self.paused else [task_id for lane in self.lanes for task_id in lane.heads()]


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
