"""The state of one memory server, and the few moves that all verbs are made of. Everything here runs under `lock`."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import OrderedDict

from penstock.clock import Clock
from penstock.coordinator import Revoked, WorkerInfo
from penstock.draining import Drains
from penstock.engines.memory.limits import Limits
from penstock.engines.memory.pausing import Waiters
from penstock.engines.memory.records import Candidates, Gathering, Hold, Lead, Letter, Line, Place, Task
from penstock.engines.memory.shelf import Shelf
from penstock.message import Limit, Message, Unique, pack
from penstock.outcome import Outcome, State
from penstock.queue import Queue

REMEMBERED = 1_000_000
"""Ids of ended tasks, and revocations, that are remembered, so that a repeat is recognised."""

LETTERS = 100_000
"""Dead letters kept; the oldest go first."""
STALE = 1_000
"""Candidates to shed that may have gone otherwise, beside as many as wait."""


class Store:
    def __init__(self, clock: Clock, shelf: Shelf) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.waiters = Waiters()
        self.shelf = shelf
        self.lines: dict[tuple[str, str], Line] = {}
        self.tasks: dict[str, Task] = {}
        self.limits = Limits(clock, self.tasks)
        self.leased: dict[str, Task] = {}
        self.delayed: list[tuple[float, int, str]] = []
        self.ended: OrderedDict[str, None] = OrderedDict()
        self.letters: dict[str, Letter] = {}
        self.uniques: dict[tuple[str, str], Hold] = {}
        self.dedups: dict[tuple[str, str], Hold] = {}
        self.gatherings: dict[str, Gathering] = {}
        self.values: dict[str, tuple[bytes, int]] = {}
        self.leads: dict[str, Lead] = {}
        self.workers: dict[str, tuple[WorkerInfo, float]] = {}
        self.revoked: OrderedDict[str, bool] = OrderedDict()
        self.starts: dict[tuple[int, int], tuple[object, ...]] = {}
        """What every slot of every handle runs now."""
        self.drains = Drains(self.now)
        self.numbers = itertools.count(1)
        """Orders, tokens and versions: none is ever given twice."""

    def now(self) -> float:
        return self.clock.time()

    def line(self, namespace: str, queue: str) -> Line:
        """The queue, made with the default bounds if nobody declared it."""
        line = self.lines.get((namespace, queue))
        if line is None:
            line = self.lines[namespace, queue] = Line(Queue(queue), namespace, self.now())
        return line

    def line_of(self, task: Task) -> Line:
        return self.lines[task.namespace, task.queue]

    # Moves of a task. Each keeps the counters, so that depth is always ready + leased + delayed.

    def enter(self, message: Message, task_id: str) -> Task:
        """Make a task of an accepted message: ready, or delayed until its eta."""
        self.line(message.namespace, message.queue)
        task = Task(
            id=task_id,
            name=message.task,
            namespace=message.namespace,
            queue=message.queue,
            priority=message.priority,
            partition=message.partition,
            data=pack(message),
            accepted=self.now(),
            order=next(self.numbers),
            attempts=message.attempts,
            retries=message.retries,
            uniques=tuple(guard for guard in message.guards if isinstance(guard, Unique)),
            limit=limit_of(message),
            expires=message.expires,
        )
        self.admit(task, message.eta, newest=True)
        return task

    def admit(self, task: Task, due: float | None, *, newest: bool) -> None:
        """It is one of the tasks now; `newest` if it comes from a new message, and not from the dead."""
        self.tasks[task.id] = task
        self.line_of(task).enqueued += 1
        if task.limit is not None:
            self.limits.enter(task.namespace, task.limit, newest=newest)
        self.place(task, due)

    def place(self, task: Task, due: float | None) -> None:
        """Count a task that is nowhere yet, and let it wait: until `due`, or only for a worker."""
        line = self.line_of(task)
        line.bytes += len(task.data)
        task.due = due if due is not None and due > self.now() else None
        if task.due is None:
            task.place = Place.READY
            line.lanes[task.priority].add(task)
            if line.candidates is not None:
                self._add_candidate(line, line.candidates, task)
            self.waiters.ring()
        else:
            task.place = Place.DELAYED
            heapq.heappush(self.delayed, (task.due, task.order, task.id))
            self.waiters.ring()  # who waits must now wake up when this is due
        line.counts[task.place] += 1

    def _add_candidate(self, line: Line, candidates: Candidates, task: Task) -> None:
        if len(candidates) > 2 * line.counts[Place.READY] + STALE:
            line.candidates = None  # it sheds no more, as it seems: made anew when it does
        else:
            candidates.add(task)

    def lift(self, task: Task) -> None:
        """Take a task from where it is; it is nowhere then."""
        line = self.line_of(task)
        line.bytes -= len(task.data)
        line.counts[task.place] -= 1
        match task.place:
            case Place.READY:
                line.lanes[task.priority].remove(task)
            case Place.DELAYED:
                self.delayed.remove((task.due or 0.0, task.order, task.id))
                heapq.heapify(self.delayed)
            case Place.LEASED:
                del self.leased[task.id]
                task.token, task.worker, task.progress = 0, "", None
                if task.limit is not None:
                    self.limits.free(task)
                    self.waiters.ring()

    def lease(self, task: Task, worker: str, until: float) -> None:
        """Hand a ready task, a head of its lane, to a worker."""
        line = self.line_of(task)
        line.lanes[task.priority].take(task)
        self.limits.lease(task)
        line.counts[Place.READY] -= 1
        line.counts[Place.LEASED] += 1
        task.place, task.worker, task.until, task.handed = Place.LEASED, worker, until, True
        task.token = next(self.numbers)
        self.leased[task.id] = task
        self._free_uniques(task, "start")

    def give_back(self, task: Task, *, charge: bool) -> None:
        """A leased task returns to its old place in its lane, or ends if it was revoked meanwhile."""
        self.lift(task)
        task.attempts += charge
        if task.revoked:
            self.end(task, Outcome(State.REVOKED, b"", self.now(), retries=task.retries))
        else:
            self._hold_uniques_again(task)
            self.place(task, None)

    def end(self, task: Task, outcome: Outcome | None) -> None:
        """A task that is nowhere (see `lift`) leaves for good."""
        del self.tasks[task.id]
        self.limits.leave(task)
        self.line_of(task).settled += 1
        self._free_uniques(task, "start", "done")
        self.remember_end(task.id)
        if outcome is not None:
            self.shelf.store(task.id, outcome, task.name, task.queue)

    def revoke(self, task: Task, terminate: bool) -> Revoked:
        """A task that waits ends as REVOKED; of one that is leased, its worker will hear."""
        if task.place is Place.LEASED:
            task.revoked, task.terminate = True, task.terminate or terminate
            return Revoked.RUNNING
        self.lift(task)
        self.end(task, Outcome(State.REVOKED, b"", self.now(), retries=task.retries))
        return Revoked.REMOVED

    def bury(self, task: Task, reason: str, outcome: Outcome | None) -> None:
        """A lifted task becomes a dead letter."""
        self.end(task, outcome)
        self.letters[task.id] = Letter(task, reason, self.now())
        if len(self.letters) > LETTERS:
            del self.letters[next(iter(self.letters))]

    def remember_end(self, task_id: str) -> None:
        self.ended[task_id] = None
        while len(self.ended) > REMEMBERED:
            self.ended.popitem(last=False)

    def known(self, task_id: str) -> bool:
        """Was this id accepted before, or has it ended without?"""
        seen = task_id in self.tasks or task_id in self.ended or task_id in self.letters
        return seen or self.shelf.get(task_id) is not None

    def started(self, task: Task) -> bool:
        return task.receipt in self.starts.values()

    # Keys.

    def displace(self, task_id: str, guard: Unique) -> None:
        """What becomes of a task whose key went to a newer one: it ends if it waits, and, if it is leased, goes on
        without the key, or is revoked."""
        task = self.tasks.get(task_id)
        if task is not None and (task.place is not Place.LEASED or guard.on_conflict == "cancel"):
            self.revoke(task, terminate=True)

    def free_unique(self, task: Task, key: str) -> None:
        hold = self.uniques.get((task.namespace, key))
        if hold is not None and hold.id == task.id:
            del self.uniques[task.namespace, key]

    def _free_uniques(self, task: Task, *moments: str) -> None:
        for guard in task.uniques:
            if guard.until in moments:
                self.free_unique(task, guard.key)

    def _hold_uniques_again(self, task: Task) -> None:
        """It did not start after all; if somebody took the key meanwhile, both wait."""
        for guard in task.uniques:
            if guard.until == "start":
                until = None if guard.ttl is None else self.now() + guard.ttl
                self.uniques.setdefault((task.namespace, guard.key), Hold(task.id, until))

    # Time.

    def tidy(self) -> int:
        """Promote what is due, take back what ran out; returns how many. The first thing that every verb does."""
        now, moved = self.now(), 0
        while self.delayed and self.delayed[0][0] <= now:
            task = self.tasks[self.delayed[0][2]]
            self.lift(task)
            task.accepted = max(task.accepted, task.due or 0.0)
            task.order = next(self.numbers)  # due tasks queue up behind what is there, in the order of their due times
            self.place(task, None)
            moved += 1
        for task in [task for task in self.leased.values() if task.until <= now]:
            self.give_back(task, charge=self.started(task))
            moved += 1
        return moved

    def next_event(self) -> float | None:
        """When `tidy` will have something to do (Unix time)."""
        times = [task.until for task in self.leased.values()]
        if self.delayed:
            times.append(self.delayed[0][0])
        return min(times, default=None)


def limit_of(message: Message) -> Limit | None:
    return next((guard for guard in message.guards if isinstance(guard, Limit)), None)
