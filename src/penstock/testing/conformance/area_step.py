"""Settling and reserving: one settlement per delivery, verdicts do what they say, demands are respected, waits end."""

from __future__ import annotations

from penstock.broker import DONE, LEASE_LOST
from penstock.delivery import ACK, RELEASE, Dead, RetryAt, Settlement
from penstock.effects import Publish
from penstock.outcome import Outcome, State
from penstock.testing.conformance.expect import Violation, equal, expect, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import bodies, success


async def check_empty_step(kit: Kit) -> None:
    worker = await kit.worker()
    step = await worker.step([], None)
    equal((list(step.settled), list(step.deliveries)), ([], []), "an empty step")
    await worker.nothing(await kit.queue())


async def check_ack_ends_the_task(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    within(await kit.depth(queue), (1, None), "depth while leased")
    await worker.nothing(queue)
    await worker.finish(delivery)
    within(await kit.depth(queue), (0, None), "depth after the ack")
    await worker.nothing(queue)


async def check_settled_once(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    await worker.finish(delivery, outcome=success(kit, b'"first"'))
    follow_up = Publish(kit.message(queue, id=f"{task_id}-next"))
    again = Settlement(delivery.receipt, ACK, Outcome(State.FAILURE, b'"second"', kit.now()), (follow_up,))
    equal(await worker.settle(again), [LEASE_LOST], "second settlement of a receipt")
    [report] = await kit.fetch(task_id)
    equal(report.outcome and report.outcome.value, b'"first"', "the outcome after a second settlement")
    await worker.nothing(queue)


async def check_settled_twice_in_one_step(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 2)
    one, two = await worker.take(queue, count=2)
    settled = await worker.settle(
        Settlement(one.receipt, ACK), Settlement(one.receipt, RELEASE), Settlement(two.receipt, ACK)
    )
    equal(settled, [DONE, LEASE_LOST, DONE], "answers when a receipt comes twice")
    await worker.nothing(queue)


async def check_every_verdict_is_final(kit: Kit) -> None:
    for verdict in (ACK, RELEASE, RetryAt(kit.now()), Dead("no use")):
        queue, worker = await kit.queue(), await kit.worker()
        await kit.fill(queue, 1)
        delivery = await worker.take_one(queue)
        await worker.finish(delivery, verdict)
        equal(await worker.settle(Settlement(delivery.receipt, ACK)), [LEASE_LOST], f"ack after {verdict!r}")


async def check_settle_and_reserve_in_one_step(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 3)
    taken = await worker.take(queue)
    for wanted in ids[1:]:
        step = await worker.step([Settlement(taken[0].receipt, ACK)], worker.demand(queue, limit=1, wait=kit.patience))
        equal(list(step.settled), [DONE], "settled in a fused step")
        equal(worker.ids_of(step.deliveries), [wanted], "delivered in a fused step")
        taken = list(step.deliveries)


async def check_a_released_task_comes_back_uncharged(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    first = await worker.take_one(queue)
    await worker.finish(first, RELEASE)
    again = await worker.take_one(queue)
    equal(worker.id_of(again), task_id, "id after a release")
    expect(again.receipt != first.receipt, "a new lease has a new receipt")
    expect(again.message is not None and again.message.attempts == 0, "a release counts no attempt")


async def check_batch_settled_in_parts_and_out_of_order(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 8)
    batch = await worker.take(queue, count=8)
    await worker.finish(batch[5])
    equal(
        await worker.settle(
            Settlement(batch[7].receipt, RELEASE),
            Settlement(batch[0].receipt, ACK),
            Settlement(batch[3].receipt, Dead("poison")),
            Settlement(batch[6].receipt, RetryAt(kit.now(), batch[6].message)),
            Settlement(batch[2].receipt, RELEASE),
        ),
        [DONE] * 5,
        "answers to a mixed settlement",
    )
    within(await kit.depth(queue), (5, None), "depth: two held, two released, one to retry")
    returned = await worker.take(queue, count=3)
    equal(sorted(worker.ids_of(returned)), sorted([ids[2], ids[6], ids[7]]), "what came back")
    equal(await worker.settle(Settlement(batch[1].receipt, ACK)), [DONE], "a neighbour is still held")
    equal(await worker.settle(Settlement(batch[4].receipt, ACK)), [DONE], "the last neighbour is still held")
    equal(await worker.settle(Settlement(batch[2].receipt, ACK)), [LEASE_LOST], "the old receipt of a released task")
    equal(await worker.settle(*(Settlement(item.receipt, ACK) for item in returned)), [DONE] * 3, "the rest")
    within(await kit.depth(queue), (0, None), "depth at the end")


async def check_one_lost_receipt_does_not_harm_its_neighbours(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    one, two, three = await worker.take(queue, count=3)
    await worker.finish(two)
    settled = await worker.settle(*(Settlement(item.receipt, ACK) for item in (one, two, three)))
    equal(settled, [DONE, LEASE_LOST, DONE], "answers in the order of the settlements")


async def check_retry_keeps_the_id_and_carries_the_new_message(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.accept(kit.message(queue, b"one"))
    delivery = await worker.take_one(queue)
    changed = kit.message(queue, b"two", id=delivery.message and delivery.message.id, retries=1)
    await worker.finish(delivery, RetryAt(kit.now(), changed))
    within(await kit.depth(queue), (1, None), "depth with a task to retry")
    again = await worker.take_one(queue)
    equal(worker.id_of(again), task_id, "id of a retried task")
    message = again.message
    equal(message and (message.body, message.retries, message.attempts), (b"two", 1, 0), "the retried message")


async def check_retry_may_carry_another_task(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.accept(kit.message(queue, b"one"))
    delivery = await worker.take_one(queue)
    other = kit.message(queue, b"two", id=delivery.message and delivery.message.id)
    other.task = "another"
    await worker.finish(delivery, RetryAt(kit.now(), other))
    again = await worker.take_one(queue)
    equal(again.message and (again.message.task, again.message.body), ("another", b"two"), "the task of a retry")
    await worker.finish(again, outcome=success(kit))
    [report] = await kit.fetch(task_id)
    expect(report.task != "conformance.task", f"the name of a replaced task is {report.task!r} in its result")


async def check_retry_may_keep_the_message_and_charge_an_attempt(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(kit.message(queue, b"same"))
    for attempts in range(3):
        delivery = await worker.take_one(queue)
        equal(delivery.message and delivery.message.attempts, attempts, "attempts")
        await worker.finish(delivery, RetryAt(kit.now(), charge=True))
    equal(bodies(await worker.take(queue)), [b"same"], "body kept by a retry without a message")


async def check_limit_is_respected(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 10)
    await worker.take(queue)  # so that a prefetching engine has had its chance
    step = await worker.step([], worker.demand(queue, limit=4, wait=kit.patience))
    expect(1 <= len(step.deliveries) <= 4, f"a demand of 4 brought {len(step.deliveries)}")


async def check_max_bytes_is_respected_but_one_always_comes(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*(kit.message(queue, b"x" * 10_000) for _ in range(5)))
    step = await worker.step([], worker.demand(queue, limit=5, max_bytes=25_000, wait=kit.patience))
    expect(1 <= len(step.deliveries) <= 2, f"{len(step.deliveries)} messages of 10 kB for a demand of 25 kB")
    step = await worker.step([], worker.demand(queue, limit=5, max_bytes=10, wait=kit.patience))
    equal(len(step.deliveries), 1, "a message larger than the demand comes alone")


async def check_two_workers_share_without_overlap(kit: Kit) -> None:
    queue = await kit.queue()
    one, two = await kit.worker("one"), await kit.worker("two")
    ids = await kit.fill(queue, 10)
    mine = await one.take(queue, count=4)
    yours = await two.take(queue, count=6)
    equal(sorted([*one.ids_of(mine), *two.ids_of(yours)]), sorted(ids), "every task at one worker")
    await one.nothing(queue)
    await two.nothing(queue)


async def check_receipt_is_hashable(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 2)
    one, two = await worker.take(queue, count=2)
    equal(len({one.receipt, two.receipt}), 2, "different receipts in a set")


async def check_waiting_step_returns_when_a_publish_arrives(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    waiting = kit.start(worker.committer.step([], worker.demand(queue, wait=60.0)), worker.engine)
    [task_id] = await kit.fill(queue, 1)
    step = await waiting.end()
    equal(worker.ids_of(step.deliveries), [task_id], "what a waiting step brought")


async def check_waiting_step_commits_its_settlements_first(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    settlement = Settlement(delivery.receipt, ACK, success(kit))
    told = Told()
    subscription = kit.backend.subscribe([task_id], told)
    waiting = kit.start(worker.committer.step([settlement], worker.demand(queue, wait=60.0)), worker.engine)
    await kit.threaded(told.wait)
    subscription.close()
    await kit.fill(queue, 1)
    equal(list((await waiting.end()).settled), [DONE], "settled by a waiting step")


async def check_waiting_step_gives_up_in_time(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    step = await kit.start(worker.committer.step([], worker.demand(queue, wait=0.05)), worker.engine).end()
    equal(list(step.deliveries), [], "a wait that nothing ended")


async def check_interrupt_ends_a_waiting_step(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    waiting = kit.start(worker.committer.step([], worker.demand(queue, wait=60.0)), worker.engine)
    # An interrupt before the wait began has nothing to cut short, so it is repeated until it did.
    await kit.repeat(worker.broker.interrupt, until=waiting.ended)
    equal(list((await waiting.end()).deliveries), [], "an interrupted step")


async def check_dead_leaves_the_queue(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    await worker.finish(await worker.take_one(queue), Dead("no use"))
    within(await kit.depth(queue), (0, None), "depth after Dead")
    await worker.nothing(queue)


async def check_outcome_is_there_with_the_settlement(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    outcome = Outcome(State.SUCCESS, b"[1,2]", kit.now(), runtime=0.5, retries=2, content_type="json")
    await worker.finish(await worker.take_one(queue), outcome=outcome)
    [report] = await kit.fetch(task_id)
    if report.outcome is None:
        raise Violation("the outcome is missing after its settlement")
    equal((report.id, report.state), (task_id, State.SUCCESS), "report of a finished task")
    found = report.outcome
    equal((found.state, found.value, found.content_type), (State.SUCCESS, b"[1,2]", "json"), "stored outcome")
    equal((found.runtime, found.retries), (0.5, 2), "runtime and retries of the stored outcome")
    expect(abs(found.done - outcome.done) < 0.01, "the time of the outcome is kept")


CHECKS = (
    check_empty_step,
    check_ack_ends_the_task,
    check_settled_once,
    check_settled_twice_in_one_step,
    check_every_verdict_is_final,
    check_settle_and_reserve_in_one_step,
    check_a_released_task_comes_back_uncharged,
    check_batch_settled_in_parts_and_out_of_order,
    check_one_lost_receipt_does_not_harm_its_neighbours,
    check_retry_keeps_the_id_and_carries_the_new_message,
    check_retry_may_carry_another_task,
    check_retry_may_keep_the_message_and_charge_an_attempt,
    check_limit_is_respected,
    check_max_bytes_is_respected_but_one_always_comes,
    check_two_workers_share_without_overlap,
    check_receipt_is_hashable,
    check_waiting_step_returns_when_a_publish_arrives,
    check_waiting_step_commits_its_settlements_first,
    check_waiting_step_gives_up_in_time,
    check_interrupt_ends_a_waiting_step,
    check_dead_leaves_the_queue,
    check_outcome_is_there_with_the_settlement,
)
