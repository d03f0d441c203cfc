"""Bounds: new work beyond them is refused, with a time to come back; work that is already here never is.

Where `features.bound` is "soft", numbers are not asked for, but every other part of the promise is.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import Accepted, Answer, Duplicate, Full
from penstock.delivery import RELEASE, RetryAt, Settlement
from penstock.effects import Publish
from penstock.queue import Queue
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import success

SLACK = 50
"""New tasks that a soft bound may let in beyond itself, one after the other."""


def full(answers: Sequence[Answer], queue: str, what: str) -> Full:
    """All answers, which must say that `queue` is full; returns the first."""
    for answer in answers:
        found = instance(answer, Full, what)
        equal(found.queue, queue, f"{what}: the queue")
        expect(found.retry_after > 0, f"{what}: retry_after must be more than 0, not {found.retry_after}")
    return instance(answers[0], Full, what)


async def unbounded(kit: Kit) -> bool:
    """True for an engine without bounds, after making sure that it refuses to declare one."""
    if kit.features.bound != "none":
        return False
    await kit.refused(kit.inspect.declare([Queue(kit.name("queue"), 5)]), "a bound")
    return True


async def inexact(kit: Kit) -> bool:
    """True for an engine whose bounds are not exact, after making sure that it refuses them, or keeps them softly:
    sooner or later the queue is full, what was accepted is there, and what was refused is not."""
    if kit.features.bound == "exact" or await unbounded(kit):
        return kit.features.bound != "exact"
    queue, worker = await kit.queue(max_length=5), await kit.worker()
    ids = await fill_up(kit, queue, 5)
    equal(worker.ids_of(await worker.take(queue, count=len(ids))), ids, "what was accepted by a full queue")
    await worker.nothing(queue)
    return True


async def fill_up(kit: Kit, queue: str, bound: int) -> list[str]:
    """Publish until `queue` is full, which has room for `bound` tasks; returns the ids of what was accepted."""
    ids: list[str] = []
    while isinstance(answer := (await kit.publish(kit.message(queue)))[0], Accepted):
        ids.append(kit.public_id(answer.key))
        if len(ids) > bound + SLACK:
            raise Violation(f"{len(ids)} tasks were accepted by a queue with room for {bound}")
    full([answer], queue, "publish into a full queue")
    if kit.features.bound == "exact":
        equal(len(ids), bound, "tasks accepted before the queue was full")
    return ids


async def check_full_adds_nothing(kit: Kit) -> None:
    if await inexact(kit):
        return
    queue = await kit.queue(max_length=3)
    await kit.fill(queue, 3)
    answer = full(await kit.publish(kit.message(queue)), queue, "publish into a full queue")
    equal((answer.limit, answer.unit), (3, "tasks"), "limit and unit")
    expect(answer.depth >= 3, f"depth in the answer is {answer.depth}")
    within(await kit.depth(queue), (3, None), "depth after a refusal")
    worker = await kit.worker()
    await worker.take(queue, count=3)
    await worker.nothing(queue)


async def check_a_refused_batch_is_refused_whole(kit: Kit) -> None:
    if await inexact(kit) or not kit.features.whole_batches:
        await check_a_batch_is_answered_as_it_is_stored(kit)
        return
    size = min(4, kit.features.max_batch)
    queue, worker = await kit.queue(max_length=size + 1), await kit.worker()
    await kit.fill(queue, 2)
    full(await kit.publish(*(kit.message(queue) for _ in range(size))), queue, "a batch that does not fit")
    within(await kit.depth(queue), (2, None), "depth after a refused batch")
    await worker.take(queue, count=2)
    await worker.nothing(queue)


async def check_a_batch_is_answered_as_it_is_stored(kit: Kit) -> None:
    """Whole or not: exactly those messages are there that the answers call accepted."""
    if await unbounded(kit):
        return
    tight, free, worker = await kit.queue(max_length=2), await kit.queue(), await kit.worker()
    size = min(3, kit.features.max_batch)
    answers: list[Answer] = []
    names = [kit.name("id") for _ in range(0, (2 + SLACK) * 2, size)]
    for name in names:
        batch = [kit.message(free if n == 1 else tight, id=f"{name}-{n}") for n in range(size)]
        answers += await kit.call(kit.broker.publish(batch, PUBLISH_TIMEOUT))
    refused = [answer for answer in answers if isinstance(answer, Full)]
    accepted = [kit.public_id(answer.key) for answer in answers if isinstance(answer, Accepted)]
    full(refused[:1], tight, "one of many messages for a queue that is full")
    equal(len(refused) + len(accepted), len(answers), "messages that were accepted or refused")
    taken = await worker.take(tight, free, count=len(accepted))
    equal(sorted(worker.ids_of(taken)), sorted(accepted), "what is there of batches that did not fit")
    await worker.nothing(tight, free)


async def check_a_batch_for_several_queues_is_refused_whole(kit: Kit) -> None:
    if await inexact(kit) or not kit.features.whole_batches or kit.features.max_batch < 2:
        await check_a_batch_is_answered_as_it_is_stored(kit)
        return
    full_queue, free_queue = await kit.queue(max_length=1), await kit.queue()
    await kit.fill(full_queue, 1)
    answers = await kit.publish(kit.message(free_queue), kit.message(full_queue))
    full(answers, full_queue, "a batch of which one message does not fit")
    within(await kit.depth(free_queue), (0, None), "depth of the queue with room after a refused batch")
    await (await kit.worker()).nothing(free_queue)


async def check_a_refused_id_can_be_published_later(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=1), await kit.worker()
    ids = await fill_up(kit, queue, 1)
    message = kit.message(queue, id=kit.name("id"))
    full(await kit.publish(message), queue, "publish into a full queue")
    for delivery in await worker.take(queue, count=len(ids)):
        await worker.finish(delivery)
    equal(await kit.accept(message), [message.id], "id of the second try")
    await worker.take(queue)


async def check_a_duplicate_is_recognised_in_a_full_queue(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue = await kit.queue(max_length=1)
    message = kit.message(queue, id=kit.name("id"))
    await kit.accept(message)
    await fill_up(kit, queue, 0)
    # Who does not know ids can only say that the queue is full.
    answer = Duplicate if kit.features.knows_ids else Full
    instance((await kit.publish(message))[0], answer, "a repeat into a full queue")


async def check_leased_and_delayed_count(kit: Kit) -> None:
    if await inexact(kit):
        return
    queue, worker = await kit.queue(max_length=3), await kit.worker()
    await kit.fill(queue, 2)
    await worker.take(queue, count=2)
    if kit.features.delay:
        await kit.accept(kit.message(queue, eta=kit.now() + 1000))
    else:
        await kit.fill(queue, 1)
    within(await kit.depth(queue), (3, None), "depth = ready + leased + delayed")
    full(await kit.publish(kit.message(queue)), queue, "publish when leased and delayed tasks fill the queue")


async def check_room_after_an_ack(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    ids = await fill_up(kit, queue, 2)
    for delivery in await worker.take(queue, count=len(ids) - 1):
        await worker.finish(delivery)
    await kit.fill(queue, 1)
    await fill_up(kit, queue, 0)


async def check_bytes_are_bounded(kit: Kit) -> None:
    if await inexact(kit):
        return
    queue, worker = await kit.queue(max_bytes=10_000), await kit.worker()
    await kit.accept(kit.message(queue, b"x" * 6_000))
    answer = full(await kit.publish(kit.message(queue, b"x" * 6_000)), queue, "too many bytes")
    equal((answer.limit, answer.unit), (10_000, "bytes"), "limit and unit")
    within(await kit.depth(queue), (1, None), "depth after a refusal")
    await worker.finish(await worker.take_one(queue))
    await kit.accept(kit.message(queue, b"x" * 6_000))


async def check_one_full_queue_does_not_bound_another(kit: Kit) -> None:
    if await unbounded(kit):
        return
    one, two = await kit.queue(max_length=1), await kit.queue(max_length=1)
    await fill_up(kit, one, 1)
    await kit.fill(two, 1)


async def check_a_bound_can_be_changed(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue = await kit.queue(max_length=1)
    ids = await fill_up(kit, queue, 1)
    await kit.call(kit.inspect.declare([Queue(queue, len(ids) + 1)]))
    await kit.fill(queue, 1)
    await fill_up(kit, queue, 0)


async def check_retries_and_releases_are_admitted_and_count(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    ids = await fill_up(kit, queue, 2)
    one, two = await worker.take(queue, count=2)
    await worker.settle(Settlement(one.receipt, RELEASE), Settlement(two.receipt, RetryAt(kit.now(), two.message)))
    within(await kit.depth(queue), (len(ids), None), "depth after a release and a retry")
    full(await kit.publish(kit.message(queue)), queue, "publish after a release and a retry")
    await worker.take(queue, count=len(ids))


async def check_follow_ups_are_admitted_into_a_full_queue(kit: Kit) -> None:
    """Those of a settlement, and those that no settlement can carry."""
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    ids = await fill_up(kit, queue, 2)
    delivery = await worker.take_one(queue)
    await fill_up(kit, queue, 0)
    follow_ups = [Publish(kit.message(queue, id=f"{ids[0]}-{n}")) for n in range(3)]
    await worker.finish(delivery, outcome=success(kit), effects=follow_ups)
    late = kit.message(queue, id=f"{ids[0]}-late")
    [answer] = await kit.call(worker.broker.follow_up([late], PUBLISH_TIMEOUT), worker.engine)
    instance(answer, Accepted, "a follow-up of no settlement, into a full queue")
    full(await kit.publish(kit.message(queue)), queue, "publish into an overfull queue")
    if kit.features.bound == "exact":
        within(await kit.depth(queue), (5, None), "depth: follow-ups go beyond the bound, and count")
    taken = await worker.take_up_to(queue, count=len(ids) + SLACK + 4)
    expect(
        {*(one.message.id for one in follow_ups), late.id} <= {*worker.ids_of(taken)}, "all follow-ups are delivered"
    )
    for delivery in taken:
        await worker.finish(delivery)
    instance((await kit.publish(kit.message(queue)))[0], Accepted, "publish when there is room again")


async def check_due_delayed_tasks_are_admitted(kit: Kit) -> None:
    if await unbounded(kit) or not kit.features.delay:
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    due = await kit.accept(kit.message(queue, eta=kit.now() + kit.unit))
    others = await fill_up(kit, queue, 1)
    await kit.pass_time(kit.unit * 1.5)
    full(await kit.publish(kit.message(queue)), queue, "publish beside a due task")
    taken = worker.ids_of(await worker.take(queue, count=len(others) + 1))
    expect(due[0] in taken, "the due task is delivered")


CHECKS = (
    check_full_adds_nothing,
    check_a_refused_batch_is_refused_whole,
    check_a_batch_is_answered_as_it_is_stored,
    check_a_batch_for_several_queues_is_refused_whole,
    check_a_refused_id_can_be_published_later,
    check_a_duplicate_is_recognised_in_a_full_queue,
    check_leased_and_delayed_count,
    check_room_after_an_ack,
    check_bytes_are_bounded,
    check_one_full_queue_does_not_bound_another,
    check_a_bound_can_be_changed,
    check_retries_and_releases_are_admitted_and_count,
    check_follow_ups_are_admitted_into_a_full_queue,
    check_due_delayed_tasks_are_admitted,
)
