"""Leases: they run out, the task comes back under a new receipt, and the old one commits nothing."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import DONE, LEASE_LOST, Held, Lost
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement, Verdict
from penstock.effects import Publish
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import LONG, Worker, bodies, success


async def lost_and_found(kit: Kit, queue: str) -> tuple[Worker, Delivery, Worker, Delivery]:
    """One task, taken by a worker that lost its lease, then by another worker."""
    zombie, heir = await kit.worker("zombie"), await kit.worker("heir")
    await kit.fill(queue, 1)
    old = await zombie.take_one(queue, lease=kit.unit)
    await kit.expire(zombie)
    new = await heir.take_one(queue)
    equal(heir.id_of(new), zombie.id_of(old), "id of a redelivered task")
    return zombie, old, heir, new


async def check_expired_lease_is_redelivered_with_a_new_receipt(kit: Kit) -> None:
    queue = await kit.queue()
    _, old, _, new = await lost_and_found(kit, queue)
    expect(old.receipt != new.receipt, "a new lease has a new receipt")
    equal(bodies([new]), [b"0"], "body of a redelivered task")
    within(await kit.depth(queue), (1, None), "depth after a redelivery")


async def check_old_receipt_settles_nothing(kit: Kit) -> None:
    verdicts: tuple[Verdict, ...] = (ACK, RELEASE, RetryAt(kit.now()), Dead("zombie"))
    for verdict in verdicts:
        queue = await kit.queue()
        zombie, old, heir, new = await lost_and_found(kit, queue)
        equal(await zombie.settle(Settlement(old.receipt, verdict)), [LEASE_LOST], f"{verdict!r} by a zombie")
        within(await kit.depth(queue), (1, None), f"depth after {verdict!r} by a zombie")
        await zombie.nothing(queue)
        await heir.finish(new, outcome=success(kit))


async def check_old_receipt_commits_no_outcome_and_no_follow_up(kit: Kit) -> None:
    queue = await kit.queue()
    zombie, old, heir, new = await lost_and_found(kit, queue)
    task_id = heir.id_of(new)
    follow_up = Publish(kit.message(queue, b"next", id=f"{task_id}-next"))
    ghost = Settlement(old.receipt, ACK, success(kit, b'"ghost"'), (follow_up,))
    equal(await zombie.settle(ghost), [LEASE_LOST], "a zombie's settlement")
    [report] = await kit.fetch(task_id)
    expect(not report.state.terminal, f"a zombie's outcome was stored: {report.state}")
    await heir.nothing(queue)
    await heir.finish(new, outcome=success(kit, b'"real"'), effects=[follow_up])
    [report] = await kit.fetch(task_id)
    equal(report.outcome and report.outcome.value, b'"real"', "the outcome that is kept")
    equal(bodies(await heir.take(queue)), [b"next"], "the follow-up")
    await heir.nothing(queue)


async def check_lost_even_before_anybody_else_has_it(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    old = await worker.take_one(queue, lease=kit.unit)
    await kit.expire(worker)
    equal(await worker.settle(Settlement(old.receipt, ACK)), [LEASE_LOST], "ack after the lease was taken back")
    within(await kit.depth(queue), (1, None), "depth")
    await (await kit.worker()).take(queue)


async def check_only_expired_leases_are_lost(kit: Kit) -> None:
    queue, keeper, loser = await kit.queue(), await kit.worker("keeper"), await kit.worker("loser")
    ids = await kit.fill(queue, 4)
    kept = await keeper.take(queue, count=2, lease=LONG)
    lost = await loser.take(queue, count=2, lease=kit.unit)
    await kit.expire(loser)
    equal(await keeper.settle(*(Settlement(item.receipt, ACK) for item in kept)), [DONE] * 2, "acks of a live lease")
    heir = await kit.worker("heir")
    returned(kit, heir.ids_of(await heir.take(queue, count=2)), ids[2:], "what came back")
    equal(await loser.settle(*(Settlement(item.receipt, ACK) for item in lost)), [LEASE_LOST] * 2, "acks of a lost one")


async def check_partly_settled_batch_expires_in_its_rest(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 6)
    batch = await worker.take(queue, count=6, lease=kit.unit)
    await worker.settle(*(Settlement(batch[n].receipt, ACK) for n in (1, 4)))
    await kit.expire(worker)
    heir = await kit.worker("heir")
    rest = await heir.take(queue, count=4)
    equal(sorted(heir.ids_of(rest)), sorted(ids[n] for n in (0, 2, 3, 5)), "what was not settled")
    await heir.nothing(queue)
    within(await kit.depth(queue), (4, None), "depth")


async def check_what_was_not_started_is_not_charged(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    await worker.take(queue, count=3, lease=kit.unit)
    await kit.expire(worker)
    heir = await kit.worker("heir")
    counts = [item.message and item.message.attempts for item in await heir.take(queue, count=3)]
    equal(counts, [0, 0, 0], "attempts of tasks that were never started")


async def check_extend_keeps_a_lease(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    delivery = await worker.take_one(queue, lease=kit.unit * 5)
    [lease] = await kit.call(worker.broker.extend([delivery.receipt], LONG), worker.engine)
    instance(lease, Held, "extension of a held lease")
    await kit.pass_time(kit.unit * 6)
    await kit.call(kit.coordinator.reap())
    await worker.finish(delivery)


async def check_a_lease_does_not_become_shorter(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    delivery = await worker.take_one(queue, lease=LONG)
    [lease] = await kit.call(worker.broker.extend([delivery.receipt], kit.unit), worker.engine)
    instance(lease, Held, "extension by less than is left")
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    await worker.finish(delivery)


async def check_extend_tells_what_is_lost(kit: Kit) -> None:
    queue = await kit.queue()
    zombie, old, heir, new = await lost_and_found(kit, queue)
    [lease] = await kit.call(zombie.broker.extend([old.receipt], LONG), zombie.engine)
    instance(lease, Lost, "extension of a lost lease")
    [lease] = await kit.call(heir.broker.extend([new.receipt], LONG), heir.engine)
    instance(lease, Held, "extension by the new holder")
    await heir.finish(new)
    [lease] = await kit.call(heir.broker.extend([new.receipt], LONG), heir.engine)
    instance(lease, Lost, "extension of a settled delivery")


async def check_extend_answers_in_order(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    one, two, three = await worker.take(queue, count=3)
    await worker.finish(two)
    leases = await kit.call(worker.broker.extend([one.receipt, two.receipt, three.receipt], LONG), worker.engine)
    equal([type(lease) for lease in leases], [Held, Lost, Held], "answers to extend")
    equal(list(await kit.call(worker.broker.extend([], LONG), worker.engine)), [], "answers to an empty extend")


async def check_a_release_comes_back_in_its_old_place(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 4)
    one, two = await worker.take(queue, count=2)
    await worker.settle(Settlement(one.receipt, RELEASE), Settlement(two.receipt, RELEASE))
    returned(kit, worker.ids_of(await worker.take(queue, count=4)), ids, "what is delivered after a release")


async def check_what_was_lost_comes_back_in_its_old_place(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 4)
    await worker.take(queue, count=2, lease=kit.unit)
    await kit.expire(worker)
    heir = await kit.worker("heir")
    returned(kit, heir.ids_of(await heir.take(queue, count=4)), ids, "what is delivered after a lost lease")


def returned(kit: Kit, found: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """All of them, and in order where the engine keeps that."""
    if kit.features.keeps_place:
        equal(list(found), list(wanted), f"{what}, in order")
    equal(sorted(found), sorted(wanted), what)


CHECKS = (
    check_expired_lease_is_redelivered_with_a_new_receipt,
    check_old_receipt_settles_nothing,
    check_old_receipt_commits_no_outcome_and_no_follow_up,
    check_lost_even_before_anybody_else_has_it,
    check_only_expired_leases_are_lost,
    check_partly_settled_batch_expires_in_its_rest,
    check_what_was_not_started_is_not_charged,
    check_extend_keeps_a_lease,
    check_extend_tells_what_is_lost,
    check_extend_answers_in_order,
    check_a_release_comes_back_in_its_old_place,
    check_what_was_lost_comes_back_in_its_old_place,
    check_a_lease_does_not_become_shorter,
)
