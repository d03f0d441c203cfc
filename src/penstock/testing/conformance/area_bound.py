"""Bounds: new work beyond them is refused whole, with a time to come back; work that is already here never is."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import Accepted, Answer, Duplicate, Full
from penstock.delivery import RELEASE, RetryAt, Settlement
from penstock.effects import Publish
from penstock.queue import Queue
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import success


def full(answers: Sequence[Answer], queue: str, what: str) -> Full:
    """All answers, which must say that `queue` is full; returns the first."""
    for answer in answers:
        found = instance(answer, Full, what)
        equal(found.queue, queue, f"{what}: the queue")
        expect(found.retry_after > 0, f"{what}: retry_after must be more than 0, not {found.retry_after}")
    return instance(answers[0], Full, what)


async def unbounded(kit: Kit) -> bool:
    """True for an engine without bounds, after making sure that it refuses to declare one."""
    if kit.features.bound:
        return False
    await kit.refused(kit.inspect.declare([Queue(kit.name("queue"), 5)]), "a bound")
    return True


async def check_full_adds_nothing(kit: Kit) -> None:
    if await unbounded(kit):
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
    if await unbounded(kit):
        return
    size = min(4, kit.features.atomic_batch)
    queue, worker = await kit.queue(max_length=size + 1), await kit.worker()
    await kit.fill(queue, 2)
    full(await kit.publish(*(kit.message(queue) for _ in range(size))), queue, "a batch that does not fit")
    within(await kit.depth(queue), (2, None), "depth after a refused batch")
    await worker.take(queue, count=2)
    await worker.nothing(queue)


async def check_a_batch_for_several_queues_is_refused_whole(kit: Kit) -> None:
    if await unbounded(kit) or kit.features.atomic_batch < 2:
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
    await kit.fill(queue, 1)
    message = kit.message(queue, id=kit.name("id"))
    full(await kit.publish(message), queue, "publish into a full queue")
    await worker.finish(await worker.take_one(queue))
    equal(await kit.accept(message), [message.id], "id of the second try")
    await worker.take(queue)


async def check_a_duplicate_is_recognised_in_a_full_queue(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue = await kit.queue(max_length=1)
    message = kit.message(queue, id=kit.name("id"))
    await kit.accept(message)
    instance((await kit.publish(message))[0], Duplicate, "a repeat into a full queue")


async def check_leased_and_delayed_count(kit: Kit) -> None:
    if await unbounded(kit):
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
    await kit.fill(queue, 2)
    await worker.finish(await worker.take_one(queue))
    await kit.fill(queue, 1)
    full(await kit.publish(kit.message(queue)), queue, "publish when full again")


async def check_bytes_are_bounded(kit: Kit) -> None:
    if await unbounded(kit):
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
    await kit.fill(one, 1)
    await kit.fill(two, 1)


async def check_a_bound_can_be_changed(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue = await kit.queue(max_length=1)
    await kit.fill(queue, 1)
    await kit.call(kit.inspect.declare([Queue(queue, 2)]))
    await kit.fill(queue, 1)
    full(await kit.publish(kit.message(queue)), queue, "publish beyond the new bound")


async def check_retries_and_releases_are_admitted_and_count(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    await kit.fill(queue, 2)
    one, two = await worker.take(queue, count=2)
    await worker.settle(Settlement(one.receipt, RELEASE), Settlement(two.receipt, RetryAt(kit.now(), two.message)))
    within(await kit.depth(queue), (2, None), "depth after a release and a retry")
    full(await kit.publish(kit.message(queue)), queue, "publish after a release and a retry")
    await worker.take(queue, count=2)


async def check_follow_ups_are_admitted_into_a_full_queue(kit: Kit) -> None:
    if await unbounded(kit):
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    first, _ = await kit.fill(queue, 2)
    delivery = await worker.take_one(queue)
    follow_ups = [Publish(kit.message(queue, id=f"{first}-{n}")) for n in range(3)]
    await worker.finish(delivery, outcome=success(kit), effects=follow_ups)
    within(await kit.depth(queue), (4, None), "depth: follow-ups go beyond the bound, and count")
    full(await kit.publish(kit.message(queue)), queue, "publish into an overfull queue")
    for _ in range(3):
        await worker.finish(await worker.take_one(queue))
    instance((await kit.publish(kit.message(queue)))[0], Accepted, "publish when there is room again")


async def check_due_delayed_tasks_are_admitted(kit: Kit) -> None:
    if await unbounded(kit) or not kit.features.delay:
        return
    queue, worker = await kit.queue(max_length=2), await kit.worker()
    due = await kit.accept(kit.message(queue, eta=kit.now() + kit.unit))
    await kit.fill(queue, 1)
    await kit.pass_time(kit.unit * 1.5)
    full(await kit.publish(kit.message(queue)), queue, "publish beside a due task")
    expect(due[0] in worker.ids_of(await worker.take(queue, count=2)), "the due task is delivered")


CHECKS = (
    check_full_adds_nothing,
    check_a_refused_batch_is_refused_whole,
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
