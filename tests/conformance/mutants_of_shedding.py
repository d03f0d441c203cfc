"""How the memory engine makes room in a full queue, as it would be if somebody had got it wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from penstock import shedding
from penstock.broker import Full
from penstock.engines.memory import making_room
from penstock.engines.memory.making_room import Going, Newcomers
from penstock.engines.memory.records import Candidates, Line, Place, Task
from penstock.engines.memory.store import Store
from penstock.message import HIGHEST, Message
from penstock.outcome import Outcome, State
from penstock.shedding import Excess


def drops_silently(store: Store, going: Sequence[Going]) -> None:
    for one in going:
        store.lift(one.task)
        store.line_of(one.task).shed += 1
        store.end(one.task, shedding.outcome(one.message, one.reason, store.now()))


def counts_nothing(store: Store, going: Sequence[Going]) -> None:
    for one in going:
        store.lift(one.task)
        store.bury(one.task, one.reason, shedding.outcome(one.message, one.reason, store.now()))


def tells_nobody(message: Message, why: str, now: float) -> Outcome | None:
    return None


def says_revoked(message: Message, why: str, now: float) -> Outcome | None:
    return Outcome(State.REVOKED, b"", now)


def spares_nothing(message: Message) -> bool:
    return False


def takes_what_was_handed_out(self: Candidates, tasks: Mapping[str, Task]) -> Task | None:
    while self._heap:
        task = tasks.get(self._heap[0][-1])
        if task is not None and task.place is Place.READY:
            return task
        self.pop()
    return None


right_choose = making_room.choose


def sheds_what_is_higher(store: Store, line: Line, new: Newcomers, full: Full) -> list[Going] | None:
    return right_choose(store, line, replace(new, priority=HIGHEST + 1), full)


def sheds_who_gives_way(store: Store, line: Line, new: Newcomers, full: Full) -> list[Going] | None:
    return right_choose(store, line, replace(new, staying=()), full)


def sheds_part_of_what_is_needed(store: Store, line: Line, new: Newcomers, full: Full) -> list[Going] | None:
    return right_choose(store, line, replace(new, count=1, size=0), full)


right_excess = shedding.excess


def sheds_down_to_the_bound(
    count: int, size: int, depth: int, used: int, max_length: int, max_bytes: int
) -> Excess | None:
    right = right_excess(count, size, depth, used, max_length, max_bytes)
    return right and Excess(max(0, depth + count - max_length), right.bytes)


def sheds_one_too_many(count: int, size: int, depth: int, used: int, max_length: int, max_bytes: int) -> Excess | None:
    right = right_excess(count, size, depth, used, max_length, max_bytes)
    return right and Excess(right.tasks + 1, right.bytes)


def forgets_bytes(count: int, size: int, depth: int, used: int, max_length: int, max_bytes: int) -> Excess | None:
    right = right_excess(count, size, depth, used, max_length, max_bytes)
    return right and Excess(max(1, right.tasks), 0)


def takes_the_newest(self: Candidates, task: Task) -> tuple[int, float, int, str]:
    return (task.priority if self._lowest else 0, -task.accepted, -task.order, task.id)


def takes_the_oldest(self: Candidates, task: Task) -> tuple[int, float, int, str]:
    return (task.priority if self._lowest else 0, task.accepted, task.order, task.id)


MUTANTS: Sequence[tuple[str, Any, str, Callable[..., Any]]] = (
    ("overflow", making_room, "shed", drops_silently),
    ("overflow", making_room, "shed", counts_nothing),
    ("overflow", shedding, "outcome", tells_nobody),
    ("overflow", shedding, "outcome", says_revoked),
    ("overflow", shedding, "is_spared", spares_nothing),
    ("overflow", Candidates, "first", takes_what_was_handed_out),
    ("overflow", making_room, "choose", sheds_what_is_higher),
    ("overflow", making_room, "choose", sheds_who_gives_way),
    ("overflow", making_room, "choose", sheds_part_of_what_is_needed),
    ("overflow", shedding, "excess", sheds_down_to_the_bound),
    ("overflow", shedding, "excess", sheds_one_too_many),
    ("overflow", shedding, "excess", forgets_bytes),
    ("overflow", Candidates, "_entry", takes_the_newest),
    ("overflow", Candidates, "_entry", takes_the_oldest),
)
