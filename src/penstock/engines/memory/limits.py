"""The limits of one store: what each key may hand out, and what of it is leased. Used under the store's lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.clock import Clock
from penstock.engines.memory.records import Limited, Task
from penstock.limiting import GRAIN, admit, cost_of, is_spent, opens, renewed
from penstock.message import Limit


class Limits:
    def __init__(self, clock: Clock, tasks: Mapping[str, Task]) -> None:
        self._clock = clock
        self._tasks = tasks
        self._keys: dict[tuple[str, str], Limited] = {}

    def enter(self, namespace: str, limit: Limit, *, newest: bool) -> None:
        """A task of this limit is here now. What it says holds for all, if it is the newest or the only one."""
        limited = self._keys.get((namespace, limit.key))
        if limited is None:
            limited = self._keys[namespace, limit.key] = Limited()
            newest = True
        if newest:
            limited.limiter = renewed(limited.limiter, limit, self._clock.time())
        limited.tasks += 1

    def leave(self, task: Task) -> None:
        limited = self._of(task)
        if limited is not None:
            limited.tasks -= 1

    def lease(self, task: Task) -> None:
        limited = self._of(task)
        if limited is not None and task.limit is not None:
            task.let_go = now = self._clock.time()
            cost = cost_of(task.limit.cost, task.expires, now)
            limited.limiter = admit(limited.limiter, [cost], limited.leased, now).after
            limited.leased += 1

    def free(self, task: Task) -> None:
        """It is not leased any more."""
        limited = self._of(task)
        if limited is not None:
            limited.leased -= 1

    def gate(self) -> Callable[[str], bool]:
        """Whether a task of this id may go now. A key of which one may not is shut for all behind that."""
        now = self._clock.time()
        shut: set[tuple[str, str]] = set()

        def may_go(task_id: str) -> bool:
            task = self._tasks[task_id]
            if task.limit is None:
                return True
            key = (task.namespace, task.limit.key)
            moment = None if key in shut else self.opens(task)
            if moment is None or moment > now + GRAIN:
                shut.add(key)
                return False
            return True

        return may_go

    def opens(self, task: Task) -> float | None:
        """When it may go (Unix time); `None`: when another task comes back, or, without a limit, at any time."""
        limited = self._of(task)
        if limited is None or task.limit is None:
            return None
        cost = cost_of(task.limit.cost, task.expires, self._clock.time())
        return opens(limited.limiter, cost, limited.leased)

    def forget_spent(self) -> None:
        now = self._clock.time()
        for key, one in list(self._keys.items()):
            if not one.tasks and is_spent(one.limiter, one.leased, now):
                del self._keys[key]

    def _of(self, task: Task) -> Limited | None:
        return None if task.limit is None else self._keys[task.namespace, task.limit.key]
