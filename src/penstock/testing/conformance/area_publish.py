"""Publishing: confirmed, visible, recognised when repeated, and refused before anything is stored."""

from __future__ import annotations

from penstock.broker import Accepted, Duplicate
from penstock.errors import ConfigError, MessageTooLarge
from penstock.message import HIGHEST
from penstock.outcome import State
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import bodies, success


async def check_published_is_counted_and_delivered(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.accept(kit.message(queue, b"[[2,3],{}]", content_type="json", headers={"trace": "abc"}))
    within(await kit.depth(queue), (1, None), "depth after one publish")
    delivery = await worker.take_one(queue)
    equal(worker.id_of(delivery), task_id, "public id of what was delivered")
    message = delivery.message
    if message is None:
        raise Violation(f"a good message came as damage: {delivery.damage!r}")
    within(message.id, (task_id, None), "id in the delivered message")
    equal(
        (message.task, message.body, message.queue, message.headers, message.retries, message.attempts),
        ("conformance.task", b"[[2,3],{}]", queue, {"trace": "abc"}, 0, 0),
        "the delivered message",
    )


async def check_another_process_sees_what_was_published(kit: Kit) -> None:
    queue = await kit.queue()
    ids = await kit.fill(queue, 3)
    other = kit.second()
    within(await kit.call(other.broker.depth(queue), other), (3, None), "depth seen from another handle")
    worker = await kit.worker()
    equal(worker.ids_of(await worker.take(queue, count=3)), ids, "ids delivered to another handle")


async def check_ids_are_kept_or_minted(kit: Kit) -> None:
    queue = await kit.queue()
    chosen = kit.name("id")
    ids = await kit.accept(kit.message(queue, id=chosen), kit.message(queue), kit.message(queue))
    equal(ids[0], chosen, "public id of a message with an id of its own")
    equal(len(set(ids)), 3, "different ids")
    expect(all(ids), "an id is never empty")


async def check_published_message_is_the_senders_no_more(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, b"before")
    await kit.accept(message)
    message.body = b"after"
    equal(bodies(await worker.take(queue)), [b"before"], "body, changed by the sender after publishing")


async def forgetful(kit: Kit) -> bool:
    """True for an engine that does not know which ids it saw, after making sure that it does not pretend to, and
    loses nothing: a repeat is a task more, of the same id."""
    if kit.features.knows_ids:
        return False
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"))
    ids = [*await kit.accept(message), *await kit.accept(message, message)]
    equal(ids, [message.id] * 3, "ids of an accepted message and its repeats")
    taken = await worker.take(queue, count=3)
    equal(worker.ids_of(taken), ids, "ids delivered")
    for number, delivery in enumerate(taken):
        await worker.finish(delivery, outcome=success(kit, b"%d" % number))
    [report] = await kit.fetch(ids[0])
    equal(report.outcome and report.outcome.value, b"0", "the outcome of an id that ended three times: the first")
    return True


async def check_same_id_twice_is_one_task(kit: Kit) -> None:
    if await forgetful(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"))
    await kit.accept(message)
    [again] = await kit.publish(message)
    equal(kit.public_id(instance(again, Duplicate, "second publish of an id").key), message.id, "key of the duplicate")
    within(await kit.depth(queue), (1, None), "depth after a repeated publish")
    await worker.take(queue)
    await worker.nothing(queue)


async def check_same_id_is_recognised_while_it_runs_and_when_it_ended(kit: Kit) -> None:
    if await forgetful(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"))
    await kit.accept(message)
    delivery = await worker.take_one(queue)
    instance((await kit.publish(message))[0], Duplicate, "publish of an id that is running")
    await worker.finish(delivery, outcome=success(kit))
    instance((await kit.publish(message))[0], Duplicate, "publish of an id that has ended")
    await worker.nothing(queue)


async def check_same_id_twice_in_one_batch(kit: Kit) -> None:
    if await forgetful(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"))
    first, second, third = await kit.publish(message, message, kit.message(queue))
    instance(first, Accepted, "first of an id in a batch")
    instance(second, Duplicate, "second of an id in a batch")
    instance(third, Accepted, "another message beside a duplicate")
    await worker.take(queue, count=2)
    await worker.nothing(queue)


async def check_answers_are_in_order_and_batches_fifo(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = [*await kit.fill(queue, 20), *await kit.fill(queue, 5)]
    taken = await worker.take(queue, count=25)
    equal(worker.ids_of(taken), ids, "ids, first in first out")
    equal(bodies(taken), [b"%d" % n for n in (*range(20), *range(5))], "bodies, first in first out")


async def check_queues_are_apart(kit: Kit) -> None:
    one, two, worker = await kit.queue(), await kit.queue(), await kit.worker()
    await kit.fill(one, 2)
    within(await kit.depth(two), (0, None), "depth of another queue")
    await worker.nothing(two)
    equal(len(await worker.take(one, two, count=2)), 2, "deliveries from both")


async def check_missing_queue_is_made_with_default_bounds(kit: Kit) -> None:
    queue, worker = kit.name("undeclared"), await kit.worker()
    within(await kit.depth(queue), (0, None), "depth of a queue that was never used")
    await kit.fill(queue, 1)
    await worker.take(queue)


async def check_published_is_pending(kit: Kit) -> None:
    queue = await kit.queue()
    [task_id] = await kit.fill(queue, 1)
    [report] = await kit.fetch(task_id)
    # An engine whose results live elsewhere cannot know of a task that has no result yet; it must not claim to.
    within(report.state, (State.PENDING,) if kit.fused else (State.PENDING, State.UNKNOWN), "state")


async def check_empty_publish(kit: Kit) -> None:
    equal(list(await kit.publish()), [], "answers to an empty batch")


async def check_what_is_too_large_or_wrong_is_refused_whole(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    good = kit.message(queue)
    for bad, error in (
        (kit.message(queue, b"x" * (kit.features.max_message + 1)), MessageTooLarge),
        (kit.message(queue, priority=HIGHEST + 1), ConfigError),
        (kit.message(queue, priority=-1), ConfigError),
    ):
        try:
            await kit.publish(*(good, bad)[-kit.features.max_batch :])
        except error:
            continue
        raise Violation(f"a message that must be refused with {error.__name__} was published")
    await worker.nothing(queue)


async def check_batch_limit(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    limit = kit.features.max_batch
    expect(limit >= 1, "max_batch is at least 1")
    batch = [kit.message(queue)] * (limit + 1)
    try:
        await kit.call(kit.broker.publish(batch, PUBLISH_TIMEOUT))
    except MessageTooLarge:
        await worker.nothing(queue)
        return
    raise Violation(f"a batch of {limit + 1} was accepted, max_batch is {limit}")


CHECKS = (
    check_published_is_counted_and_delivered,
    check_another_process_sees_what_was_published,
    check_ids_are_kept_or_minted,
    check_published_message_is_the_senders_no_more,
    check_same_id_twice_is_one_task,
    check_same_id_is_recognised_while_it_runs_and_when_it_ended,
    check_same_id_twice_in_one_batch,
    check_answers_are_in_order_and_batches_fifo,
    check_queues_are_apart,
    check_missing_queue_is_made_with_default_bounds,
    check_published_is_pending,
    check_empty_publish,
    check_what_is_too_large_or_wrong_is_refused_whole,
    check_batch_limit,
)
