"""Coordination: workers come, live and die; leases with growing tokens; small shared state with versions."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import DONE, LEASE_LOST
from penstock.delivery import ACK, Delivery, Settlement
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import Worker


async def listed(kit: Kit, worker: Worker) -> bool:
    return worker.id in [info.id for info in await kit.call(kit.coordinator.workers())]


async def bury(kit: Kit, worker: Worker) -> int:
    await kit.kill(worker)
    return await kit.call(kit.coordinator.bury(worker.id))


def charged(kit: Kit) -> int:
    """What a start is worth that never came back: an attempt, where the engine sees starts, and nothing else."""
    return 1 if kit.features.starts else 0


def taken_back(kit: Kit, held: int, started: int) -> int:
    """What a burial tells: the tasks that it took back, or where the server does that, those that it charged."""
    return held if kit.features.leases == "time" else started


async def uncoordinated(kit: Kit) -> bool:
    """True for an engine that leads no elections and keeps no shared state, after making sure that it refuses to."""
    if kit.features.coordination:
        return False
    name, coordinator = kit.name("lease"), kit.coordinator
    await kit.refused(coordinator.acquire(name, "me", kit.unit), "a lease")
    await kit.refused(coordinator.resign(name, "me"), "a lease")
    await kit.refused(coordinator.put(name, b"one"), "shared state")
    await kit.refused(coordinator.get(name), "shared state")
    return True


def attempts(deliveries: Sequence[Delivery]) -> list[int]:
    return [delivery.message.attempts for delivery in deliveries if delivery.message is not None]


async def check_workers_are_listed_until_they_leave(kit: Kit) -> None:
    worker = await kit.worker("ant", joined=False)
    expect(not await listed(kit, worker), "a worker that did not join is not listed")
    await worker.join()
    [info] = [info for info in await kit.call(kit.coordinator.workers()) if info.id == worker.id]
    equal((info.name, info.host, info.pool), ("ant", "localhost", "solo"), "what is known of a worker")
    await kit.call(worker.engine.coordinator.renew([worker.id], kit.unit * 10), worker.engine)
    expect(await listed(kit, worker), "a renewed worker is listed")
    await kit.call(worker.engine.coordinator.leave(worker.id), worker.engine)
    expect(not await listed(kit, worker), "a worker that left is not listed")


async def check_leaving_gives_back_at_once_uncharged(kit: Kit) -> None:
    queue, worker, heir = await kit.queue(), await kit.worker(), await kit.worker("heir")
    ids = await kit.fill(queue, 3)
    batch = await worker.take(queue, count=3)
    await worker.finish(batch[1])
    worker.start(batch[2])  # a cold stop: it had begun, and its worker ends it on purpose
    await kit.call(worker.engine.coordinator.leave(worker.id), worker.engine)
    back = await heir.take(queue, count=2)
    equal(heir.ids_of(back), [ids[0], ids[2]], "what a leaving worker gives back")
    equal(attempts(back), [0, 0], "attempts of what was given back")
    equal(await worker.settle(Settlement(batch[0].receipt, ACK)), [LEASE_LOST], "ack after leaving")


async def check_burying_charges_exactly_what_was_started(kit: Kit) -> None:
    queue, victim, heir = await kit.queue(), await kit.worker("victim"), await kit.worker("heir")
    ids = await kit.fill(queue, 5)
    batch = await victim.take(queue, count=5)
    victim.start(batch[0])
    await victim.finish(batch[0])
    victim.start(batch[2])
    equal(await bury(kit, victim), taken_back(kit, 4, 1), "tasks taken back from a dead worker")
    expect(not await listed(kit, victim), "a buried worker is not listed")
    back = await heir.take(queue, count=4)
    by_id = dict(zip(heir.ids_of(back), attempts(back), strict=True))
    equal(
        by_id,
        {ids[1]: 0, ids[2]: charged(kit), ids[3]: 0, ids[4]: 0},
        "attempts, of which only the started task has one",
    )
    equal(await victim.settle(Settlement(batch[2].receipt, ACK)), [LEASE_LOST], "ack of a buried worker")
    equal(await heir.settle(*(Settlement(one.receipt, ACK) for one in back)), [DONE] * 4, "acks of the heir")


async def check_what_runs_no_more_is_not_charged(kit: Kit) -> None:
    queue, victim, heir = await kit.queue(), await kit.worker("victim"), await kit.worker("heir")
    await kit.fill(queue, 1)
    [delivery] = await victim.take(queue)
    victim.start(delivery)
    victim.broker.record_start(victim.slot, None)
    await bury(kit, victim)
    equal(attempts(await heir.take(queue)), [0], "attempts of a task whose start was taken back")


async def check_attempts_add_up(kit: Kit) -> None:
    queue = await kit.queue()
    [task_id] = await kit.fill(queue, 1)
    for count in range(4):
        victim = await kit.worker("victim")
        [delivery] = await victim.take(queue)
        equal((victim.id_of(delivery), attempts([delivery])), (task_id, [count * charged(kit)]), "id and attempts")
        victim.start(delivery)
        equal(await bury(kit, victim), taken_back(kit, 1, 1), "tasks taken back")


async def check_an_expired_lease_charges_what_was_started(kit: Kit) -> None:
    queue, worker, heir = await kit.queue(), await kit.worker(), await kit.worker("heir")
    await kit.fill(queue, 3)
    batch = await worker.take(queue, count=3, lease=kit.unit)
    worker.start(batch[1])
    await kit.expire(worker)
    # A connection that broke says nothing against what runs on its other end.
    count = charged(kit) if kit.features.leases == "time" else 0
    equal(sorted(attempts(await heir.take(queue, count=3))), [0, 0, count], "attempts after a lost lease")


async def check_burying_is_of_one_worker_only(kit: Kit) -> None:
    queue, victim, other = await kit.queue(), await kit.worker("victim"), await kit.worker("other")
    await kit.fill(queue, 2)
    [mine] = await victim.take(queue)
    [yours] = await other.take(queue)
    equal(await bury(kit, victim), taken_back(kit, 1, 0), "tasks taken back")
    equal(await bury(kit, victim), 0, "tasks taken back from a worker that is buried already")
    equal(await other.settle(Settlement(yours.receipt, ACK)), [DONE], "ack of another worker")
    equal(await victim.settle(Settlement(mine.receipt, ACK)), [LEASE_LOST], "ack of the buried one")


async def check_renewing_keeps_all_leases_of_a_worker(kit: Kit) -> None:
    queue, keeper = await kit.queue(), await kit.worker("keeper")
    await kit.fill(queue, 2)
    one, two = await keeper.take(queue, count=2, lease=kit.unit * 3)
    await kit.call(keeper.engine.coordinator.renew([keeper.id], kit.unit * 20), keeper.engine)
    await kit.pass_time(kit.unit * 4)
    await kit.call(kit.coordinator.reap())
    equal(await keeper.settle(*(Settlement(item.receipt, ACK) for item in (one, two))), [DONE] * 2, "renewed leases")


async def check_reaping_when_there_is_nothing(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 2)
    delivery = await worker.take_one(queue)
    instance(await kit.call(kit.coordinator.reap()), int, "answer of reap")
    await worker.finish(delivery)
    within(await kit.depth(queue), (1, None), "depth")


async def check_acquire_is_exclusive(kit: Kit) -> None:
    if await uncoordinated(kit):
        return
    name = kit.name("lease")
    token = instance(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), int, "token")
    equal(await kit.call(kit.coordinator.acquire(name, "you", kit.unit)), None, "token of a second holder")
    other = kit.second()
    equal(
        await kit.call(other.coordinator.acquire(name, "them", kit.unit), other), None, "token through another handle"
    )
    equal(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), token, "token of a holder that keeps it")


async def check_tokens_grow_when_the_holder_changes(kit: Kit) -> None:
    if await uncoordinated(kit):
        return
    name = kit.name("lease")
    first = instance(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), int, "token")
    await kit.pass_time(kit.unit * 1.5)
    second = instance(await kit.call(kit.coordinator.acquire(name, "you", kit.unit * 20)), int, "token after expiry")
    expect(second > first, f"the token grows, but went from {first} to {second}")
    equal(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), None, "token of the former holder")
    await kit.call(kit.coordinator.resign(name, "me"))
    equal(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), None, "token after a stranger resigned")
    await kit.call(kit.coordinator.resign(name, "you"))
    third = instance(
        await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), int, "token after the holder resigned"
    )
    expect(third > second, f"the token grows, but went from {second} to {third}")


async def check_shared_state_has_versions(kit: Kit) -> None:
    if await uncoordinated(kit):
        return
    key, state = kit.name("state"), kit.coordinator
    equal(await kit.call(state.get(key)), None, "a key that is not there")
    first = instance(await kit.call(state.put(key, b"one", 0)), int, "version of a first value")
    equal(await kit.call(state.get(key)), (b"one", first), "value and version")
    equal(await kit.call(state.put(key, b"two", 0)), None, "put where there should be nothing")
    second = instance(await kit.call(state.put(key, b"two", first)), int, "version of a second value")
    equal(await kit.call(state.put(key, b"three", first)), None, "put with a stale version")
    other = kit.second()
    equal(await kit.call(other.coordinator.get(key), other), (b"two", second), "value through another handle")
    third = instance(await kit.call(state.put(key, b"")), int, "version of an unconditional value")
    expect(len({first, second, third}) == 3, "every change has another version")
    equal(await kit.call(state.get(key)), (b"", third), "an empty value is a value")


async def check_shared_state_can_be_deleted(kit: Kit) -> None:
    if await uncoordinated(kit):
        return
    key, state = kit.name("state"), kit.coordinator
    first = instance(await kit.call(state.put(key, b"one")), int, "version")
    equal(await kit.call(state.put(key, None, first + 1)), None, "delete with a wrong version")
    expect(await kit.call(state.put(key, None, first)) is not None, "delete with the right version is not refused")
    equal(await kit.call(state.get(key)), None, "a deleted key")
    second = instance(await kit.call(state.put(key, b"new", 0)), int, "version of a key that was made again")
    expect(second != first, "a key that was made again does not have its old version")


CHECKS = (
    check_workers_are_listed_until_they_leave,
    check_leaving_gives_back_at_once_uncharged,
    check_burying_charges_exactly_what_was_started,
    check_what_runs_no_more_is_not_charged,
    check_attempts_add_up,
    check_an_expired_lease_charges_what_was_started,
    check_burying_is_of_one_worker_only,
    check_renewing_keeps_all_leases_of_a_worker,
    check_reaping_when_there_is_nothing,
    check_acquire_is_exclusive,
    check_tokens_grow_when_the_holder_changes,
    check_shared_state_has_versions,
    check_shared_state_can_be_deleted,
)
