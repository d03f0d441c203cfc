"""Settling and reserving, under the store's lock."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.broker import DONE, LEASE_LOST, Demand, Done, LeaseLost
from penstock.delivery import Ack, Dead, Delivery, Receipt, Release, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish, Put, ReleaseKey, array
from penstock.engines.memory.accepting import follow_up
from penstock.engines.memory.records import Gathering, Task
from penstock.engines.memory.store import Store
from penstock.errors import DecodeError
from penstock.message import Message, pack, unpack
from penstock.outcome import Outcome, State


def held(store: Store, receipt: Receipt) -> Task | None:
    """The task of a receipt whose lease is held: the fence."""
    token, task_id = receipt
    task = store.leased.get(task_id)
    return task if task is not None and task.token == token else None


def settle(store: Store, settlement: Settlement) -> Done | LeaseLost:
    task = held(store, settlement.receipt)
    if task is None:
        return LEASE_LOST
    check_effects(settlement.effects)
    apply_verdict(store, task, settlement)
    for effect in settlement.effects:
        apply_effect(store, task, effect)
    return DONE


def apply_verdict(store: Store, task: Task, settlement: Settlement) -> None:
    match settlement.verdict:
        case Ack():
            store.lift(task)
            store.end(task, settlement.outcome)
        case Dead(reason=reason):
            store.lift(task)
            store.bury(task, reason, settlement.outcome)
        case Release():
            store.give_back(task, charge=False)
        case RetryAt() as retry:
            retry_at(store, task, retry)


def retry_at(store: Store, task: Task, retry: RetryAt) -> None:
    store.lift(task)
    task.attempts += retry.charge
    if retry.message is not None:
        task.data, task.name = pack(retry.message), retry.message.task
        task.retries, task.expires = retry.message.retries, retry.message.expires
    if task.revoked:
        store.end(task, Outcome(State.REVOKED, b"", store.now(), retries=task.retries))
        return
    task.retried = True
    task.order = next(store.numbers)
    store.place(task, retry.when)


def check_effects(effects: Sequence[Effect]) -> None:
    """Raise before anything is changed."""
    for effect in effects:
        if isinstance(effect, Join):
            array([], effect.then.content_type)


def apply_effect(store: Store, task: Task, effect: Effect) -> None:
    match effect:
        case Publish(message=message):
            follow_up(store, message)
        case Join():
            join(store, effect)
        case ReleaseKey(key=key):
            store.free_unique(task, key)
        case Put(key=key, value=value, if_version=if_version):
            put(store, key, value, if_version)


def join(store: Store, effect: Join) -> None:
    gathering = store.gatherings.setdefault(effect.id, Gathering())
    if gathering.closed is not None or effect.index in gathering.values:
        return
    gathering.values[effect.index] = effect.value
    if len(gathering.values) == effect.size:
        values = [value for _, value in sorted(gathering.values.items())]
        follow_up(store, replace(effect.then, body=array(values, effect.then.content_type)))
        gathering.values.clear()
        gathering.closed = store.now()


def put(store: Store, key: str, value: bytes | None, if_version: int | None) -> int | None:
    """Set or delete a value of the shared state: its new version, or `None` when `if_version` is not current."""
    present = store.values.get(key, (b"", 0))[1]
    if if_version is not None and if_version != present:
        return None
    if value is None:
        store.values.pop(key, None)
        return 0
    version = next(store.numbers)  # never used before, so that a deleted and recreated key is another one
    store.values[key] = (value, version)
    return version


def claim(store: Store, want: Demand) -> list[Delivery]:
    """Lease up to `want.limit` tasks, and at least one, however large, if there is any."""
    until = store.now() + want.lease
    deliveries: list[Delivery] = []
    room = want.max_bytes
    may_go = store.limits.gate()
    for queue in want.queues:
        line = store.lines.get((want.namespace, queue))
        while line is not None and len(deliveries) < want.limit and (first := line.first(may_go)) is not None:
            task = store.tasks[first]
            room -= len(task.data)
            if room < 0 and deliveries:
                return deliveries
            store.lease(task, want.worker, until)
            deliveries.append(deliver(task))
    return deliveries


def next_opening(store: Store, want: Demand) -> float | None:
    """When the first task that `want` asks for, and that waits for its limit's time, may go (Unix time)."""
    lines = [line for queue in want.queues if (line := store.lines.get((want.namespace, queue))) is not None]
    moments = [store.limits.opens(store.tasks[head]) for line in lines for head in line.heads()]
    return min((moment for moment in moments if moment is not None), default=None)


def deliver(task: Task) -> Delivery:
    message, damage = read(task.data)
    if message is None:
        return Delivery(task.receipt, task.id, None, damage, task.data, task.attempts)
    message.id, message.attempts = task.id, task.attempts
    return Delivery(task.receipt, task.id, message, attempts=task.attempts, let_go=task.let_go)


def read(data: bytes) -> tuple[Message | None, str | None]:
    """The stored message, or why it cannot be read."""
    try:
        return unpack(data), None
    except DecodeError as error:
        return None, str(error)
