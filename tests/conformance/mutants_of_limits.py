"""Limits and unique keys of the memory engine, each as it would be if somebody had got it wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from penstock import guarding
from penstock.broker import Demand
from penstock.engines.memory import limits, settling
from penstock.engines.memory.limits import Limits
from penstock.engines.memory.records import Lane, Limited, Line, Task
from penstock.engines.memory.store import Store
from penstock.limiting import Admission, Limiter, admit, opens
from penstock.message import Limit, Unique
from penstock.outcome import Outcome


def displaces_nobody(self: Store, task_id: str, guard: Unique) -> None:
    pass


right_displace = Store.displace


def displaces_only_who_waits(self: Store, task_id: str, guard: Unique) -> None:
    right_displace(self, task_id, replace(guard, on_conflict="replace"))


def revokes_who_runs(self: Store, task_id: str, guard: Unique) -> None:
    right_displace(self, task_id, replace(guard, on_conflict="cancel"))


right_end = Store.end


def frees_at_every_end(self: Store, task: Task, outcome: Outcome | None) -> None:
    right_end(self, task, outcome)
    for guard in task.uniques:
        self.free_unique(task, guard.key)


def limits_nothing(limiter: Limiter, cost: float, leased: int) -> float:
    return 0.0


def ignores_cost(limiter: Limiter, costs: Sequence[float], leased: int, now: float) -> Admission:
    return admit(limiter, [1.0 for _ in costs], leased, now)


def ignores_burst(limiter: Limiter, cost: float, leased: int) -> float | None:
    return opens(replace(limiter, burst=1.0), cost, leased)


def pays_nothing(limiter: Limiter, costs: Sequence[float], leased: int, now: float) -> Admission:
    return Admission(len(costs), limiter)


def charges_for_the_expired(cost: float, expires: float | None, now: float) -> float:
    return cost


def counts_from_the_last(limiter: Limiter, costs: Sequence[float], leased: int, now: float) -> Admission:
    """What is late is lost: the time line begins anew with each message."""
    after = admit(limiter, costs, leased, now).after
    return Admission(len(costs), replace(after, full=now + 1 / (limiter.rate or 1)))


def keeps_its_room(self: Limits, task: Task) -> None:
    pass


def shared_by_namespaces(self: Limits, task: Task) -> Limited | None:
    return None if task.limit is None else next(one for key, one in self._keys.items() if key[1] == task.limit.key)


right_enter = Limits.enter


def keeps_the_oldest(self: Limits, namespace: str, limit: Limit, *, newest: bool) -> None:
    right_enter(self, namespace, limit, newest=False)


right_first = Lane.first


def holds_up_its_partition(self: Lane, may_go: Callable[[str], bool]) -> str | None:
    heads = [min(waiting[0] for waiting in self._waiting[turn].values())[1] for turn in self._turns]
    return right_first(self, lambda task_id: task_id in heads and may_go(task_id))


right_line_first = Line.first


def holds_up_lower_priorities(self: Line, may_go: Callable[[str], bool]) -> str | None:
    highest = next((lane for lane in reversed(self.lanes) if lane.heads()), None)
    return None if highest is None or self.paused else highest.first(may_go)


def no_opening(store: Store, want: Demand) -> None:
    return None


right_lift = Store.lift


def frees_in_silence(self: Store, task: Task) -> None:
    rings, self.waiters.ring = self.waiters.ring, lambda: None  # type: ignore[method-assign]  # for this call
    right_lift(self, task)
    self.waiters.ring = rings  # type: ignore[method-assign]  # as it was


def checks_nothing(limit: Limit) -> None:
    pass


MUTANTS: list[tuple[str, object, str, Callable[..., Any]]] = [
    ("guards", Store, "displace", displaces_nobody),
    ("guards", Store, "displace", displaces_only_who_waits),
    ("guards", Store, "displace", revokes_who_runs),
    ("guards", Store, "end", frees_at_every_end),
    ("limit", limits, "opens", limits_nothing),
    ("limit", limits, "opens", ignores_burst),
    ("limit", limits, "admit", ignores_cost),
    ("limit", limits, "admit", pays_nothing),
    ("limit", limits, "cost_of", charges_for_the_expired),
    ("limit", limits, "admit", counts_from_the_last),
    ("limit", Limits, "free", keeps_its_room),
    ("limited", Limits, "_of", shared_by_namespaces),
    ("limited", Limits, "enter", keeps_the_oldest),
    ("limited", Lane, "first", holds_up_its_partition),
    ("limited", Line, "first", holds_up_lower_priorities),
    ("limited", settling, "next_opening", no_opening),
    ("limited", Store, "lift", frees_in_silence),
    ("limited", guarding, "check_limit", checks_nothing),
]
"""(the area that must see it, where, what, broken how)."""
