"""Revoking: waiting tasks are gone, running ones are told, ended ones stay, and what comes later is refused."""

from __future__ import annotations

from penstock import apart
from penstock.broker import Cancelled, Conflict, Held, Key, keeps_guard
from penstock.coordinator import Revoked
from penstock.delivery import ACK, RELEASE, RetryAt
from penstock.message import Unique
from penstock.outcome import Outcome, State
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import LONG, success


async def irrevocable(kit: Kit) -> bool:
    """True for an engine that cannot remember revocations, after making sure that it refuses them and the task goes
    on."""
    if kit.features.coordination:
        return False
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    await kit.refused(apart.revoke(kit.engine, kit.results, [task_id], kit.now()), "a revocation")
    equal(worker.ids_of(await worker.take(queue)), [task_id], "a task whose revocation was refused")
    return True


async def revoke(kit: Kit, *keys: Key, terminate: bool = False) -> list[Revoked]:
    return list(await kit.call(apart.revoke(kit.engine, kit.results, keys, kit.now(), terminate)))


async def removed(kit: Kit, *keys: Key) -> None:
    """Revoke waiting tasks. An engine that cannot take them out remembers, and drops them when they come."""
    allowed = (Revoked.REMOVED,) if kit.features.revoke_queued else (Revoked.REMEMBERED, Revoked.RUNNING)
    for found in await revoke(kit, *keys):
        within(found, allowed, "revocation of a waiting task")


async def check_a_waiting_task_is_gone(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker, told = await kit.queue(), await kit.worker(), Told()
    ids = await kit.fill(queue, 3)
    subscription = kit.backend.subscribe([ids[1]], told)
    await removed(kit, ids[1])
    taken = await worker.take(queue, count=2)
    equal(worker.ids_of(taken), [ids[0], ids[2]], "what was not revoked")
    await worker.nothing(queue)
    if kit.features.revoke_queued:
        [report] = await kit.threaded(told.wait)
        equal(report.state, State.REVOKED, "state told")
        equal((await kit.fetch(ids[1]))[0].state, State.REVOKED, "state")
    subscription.close()
    within(await kit.depth(queue), (2, None), "depth without the revoked one")


async def check_a_delayed_task_is_gone(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    if not kit.features.delay:
        return
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.accept(kit.message(queue, eta=kit.now() + kit.unit))
    await removed(kit, task_id)
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    await worker.nothing(queue)
    await kit.ended_revoked(task_id)
    within(await kit.depth(queue), (0, None), "depth")


async def check_revoking_makes_room(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    bounded = kit.features.bound == "exact"
    queue = await kit.queue(max_length=2) if bounded else await kit.queue()
    ids = await kit.fill(queue, 2)
    await removed(kit, *ids)
    if kit.features.revoke_queued:
        within(await kit.depth(queue), (0, None), "depth when all is revoked")
        await kit.fill(queue, 2)


async def check_revoking_frees_the_unique_key(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    guard = Unique(kit.name("key"))
    if not keeps_guard(kit.features, guard) or not kit.features.revoke_queued:
        return
    message = kit.message(await kit.queue(), guards=(guard,))
    [task_id] = await kit.accept(message)
    instance((await kit.publish(message))[0], Conflict, "publish of a held key")
    await removed(kit, task_id)
    await kit.accept(message)


async def check_a_running_task_is_told(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    one, two, three = await kit.fill(queue, 3)
    deliveries = await worker.take(queue, count=3)
    equal(await revoke(kit, one), [Revoked.RUNNING], "revocation of a leased task")
    equal(await revoke(kit, two, terminate=True), [Revoked.RUNNING], "revocation of a leased task")
    receipts = [delivery.receipt for delivery in deliveries]
    leases = await kit.call(worker.broker.extend(receipts, LONG), worker.engine)
    equal(list(leases[:2]), [Cancelled(False), Cancelled(True)], "extension of revoked tasks")
    instance(leases[2], Held, "extension of another one")
    for delivery in deliveries[:2]:
        await worker.finish(delivery, ACK, Outcome(State.REVOKED, b'"told"', kit.now()))
    states = [report.state for report in await kit.fetch(one, two)]
    equal(states, [State.REVOKED] * 2, "states of revoked tasks")
    expect((await kit.fetch(three))[0].state is not State.REVOKED, "their neighbour is not revoked")


async def check_a_task_that_finishes_first_has_won(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    await revoke(kit, task_id)
    await worker.finish(delivery, outcome=success(kit))
    equal((await kit.fetch(task_id))[0].state, State.SUCCESS, "state of a task that finished all the same")


async def check_a_revoked_task_does_not_come_back(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    for verdict in (RELEASE, RetryAt(kit.now())):
        queue, worker = await kit.queue(), await kit.worker()
        [task_id] = await kit.fill(queue, 1)
        delivery = await worker.take_one(queue)
        await revoke(kit, task_id)
        await worker.finish(delivery, verdict)
        await worker.nothing(queue)
        equal((await kit.fetch(task_id))[0].state, State.REVOKED, f"state after {verdict!r}")
        within(await kit.depth(queue), (0, None), f"depth after {verdict!r}")


async def check_a_revoked_task_is_not_redelivered(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker, heir = await kit.queue(), await kit.worker(), await kit.worker("heir")
    ids = await kit.fill(queue, 3)
    await worker.take(queue, count=3, lease=kit.unit)
    await revoke(kit, ids[1])
    await kit.expire(worker)
    equal(heir.ids_of(await heir.take(queue, count=2)), [ids[0], ids[2]], "what comes back")
    await heir.nothing(queue)
    await kit.ended_revoked(ids[1])
    within(await kit.depth(queue), (2, None), "depth")


async def check_an_ended_task_stays_as_it_is(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    await worker.finish(await worker.take_one(queue), outcome=success(kit, b"1"))
    equal(await revoke(kit, task_id), [Revoked.ENDED], "revocation of an ended task")
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.SUCCESS, b"1"), "its report")


async def check_an_unseen_id_is_remembered(kit: Kit) -> None:
    if await irrevocable(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"))
    equal(await revoke(kit, message.id or ""), [Revoked.REMEMBERED], "revocation of an id that was never seen")
    await kit.publish(message, kit.message(queue, b"other"))
    [delivery] = await worker.take(queue)
    equal(delivery.message and delivery.message.body, b"other", "what was not revoked")
    await worker.nothing(queue)
    await kit.ended_revoked(message.id or "")
    within(await kit.depth(queue), (1, None), "depth")


CHECKS = (
    check_a_waiting_task_is_gone,
    check_a_delayed_task_is_gone,
    check_revoking_makes_room,
    check_revoking_frees_the_unique_key,
    check_a_running_task_is_told,
    check_a_task_that_finishes_first_has_won,
    check_a_revoked_task_does_not_come_back,
    check_a_revoked_task_is_not_redelivered,
    check_an_ended_task_stays_as_it_is,
    check_an_unseen_id_is_remembered,
)
