"""Making room in a full queue, under the store's lock (`penstock.shedding`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from penstock import shedding
from penstock.broker import Full
from penstock.engines.memory.records import Candidates, Line, Task
from penstock.engines.memory.store import Store
from penstock.errors import DecodeError
from penstock.message import HIGHEST, Message, unpack
from penstock.shedding import Excess


class Going(Struct, frozen=True):
    """A task that makes room, and what its dead letter says."""

    task: Task
    message: Message
    reason: str


class Newcomers(Struct, frozen=True):
    """`count` messages of `size` bytes that find their queue full, and are worth what the lowest `priority` among them
    is. Tasks that are `staying` are not shed: they make way by themselves, and are taken off already."""

    count: int
    size: int
    priority: int
    staying: Collection[str]


def choose(store: Store, line: Line, new: Newcomers, full: Full) -> list[Going] | None:
    """Who goes so that the newcomers fit, which are `full` otherwise; `None`: nobody can make room. They are no
    candidates any more (see `spare`)."""
    declared = line.declared
    excess = shedding.excess(new.count, new.size, line.depth, line.bytes, declared.max_length, declared.max_bytes)
    if declared.overflow not in shedding.SHEDDING or excess is None:
        return None
    why = shedding.reason(declared.overflow, full.queue, full.unit, full.limit, new.priority)
    below = new.priority if declared.overflow == shedding.SHED_LOWEST else HIGHEST + 1
    if line.candidates is None:
        ready = [store.tasks[task_id] for lane in line.lanes for task_id in lane.ids()]
        line.candidates = Candidates(declared.overflow, ready)
    return _first(store, line.candidates, new.staying, excess, below, why)


def _first(
    store: Store, candidates: Candidates, staying: Collection[str], excess: Excess, below: int, why: str
) -> list[Going] | None:
    going: list[Going] = []
    kept: list[Task] = []
    freed = 0
    while len(going) < excess.tasks or freed < excess.bytes:
        task = candidates.first(store.tasks)
        if task is None or task.priority >= below or len(going) == shedding.MOST:
            spare(store, going)
            going = []
            break
        candidates.pop()
        message = _readable(task)
        if task.id in staying:
            kept.append(task)
        elif message is not None and not shedding.is_spared(message):
            going.append(Going(task, message, why))
            freed += len(task.data)
    for task in kept:
        candidates.add(task)
    return going or None


def spare(store: Store, going: Sequence[Going]) -> None:
    """They stay after all."""
    for one in going:
        candidates = store.line_of(one.task).candidates
        if candidates is not None:
            candidates.add(one.task)


def shed(store: Store, going: Sequence[Going]) -> None:
    """They become dead letters, and who waits for them is told."""
    for one in going:
        store.lift(one.task)
        store.line_of(one.task).shed += 1
        store.bury(one.task, one.reason, shedding.outcome(one.message, one.reason, store.now()))


def _readable(task: Task) -> Message | None:
    """With what is known of it; `None`: its worker decides what becomes of that."""
    try:
        message = unpack(task.data)
    except DecodeError:
        return None
    message.id, message.attempts = task.id, task.attempts
    return message
