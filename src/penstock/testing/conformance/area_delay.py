"""Delays: never early, in due order, woken when due, and counted meanwhile."""

from __future__ import annotations

from penstock.broker import Accepted
from penstock.delivery import RetryAt, Settlement
from penstock.message import Message
from penstock.testing.conformance.expect import Violation, equal, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import Worker, bodies


async def undelayed(kit: Kit) -> bool:
    """True for an engine without delays, after making sure that it refuses them."""
    if kit.features.delay:
        return False
    queue, worker = await kit.queue(), await kit.worker()
    await kit.refused(kit.broker.publish([kit.message(queue, eta=kit.now() + 1000)], PUBLISH_TIMEOUT), "a delay")
    await worker.nothing(queue)
    await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    await kit.refused(worker.broker.step([Settlement(delivery.receipt, RetryAt(kit.now() + 1000))], None), "a delay")
    await worker.finish(delivery)
    return True


async def not_before(kit: Kit, worker: Worker, queue: str, eta: float) -> None:
    """Nothing may come before `eta`. On a busy machine the moment may have passed when the step has returned."""
    deliveries = (await worker.step([], worker.demand(queue))).deliveries
    if deliveries and kit.now() < eta:
        raise Violation(f"delivered {eta - kit.now():.3f} s too early: {list(deliveries)!r}")


async def check_never_early(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    eta = kit.now() + kit.unit * 2
    [answer] = await kit.publish(kit.message(queue, b"late", eta=eta))
    key = instance(answer, Accepted, "publish with an eta").key
    within(await kit.depth(queue), (1, None), "depth with a delayed task")
    await not_before(kit, worker, queue, eta)
    await kit.pass_time(kit.unit)
    await not_before(kit, worker, queue, eta)
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    [delivery] = await worker.take(queue)
    equal(worker.id_of(delivery), kit.public_id(key), "id of a delayed task")
    equal(bodies([delivery]), [b"late"], "body of a delayed task")


async def check_a_past_eta_is_ready(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(kit.message(queue, eta=kit.now() - 1000))
    await worker.take(queue)


async def check_due_order(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    start = kit.now() + kit.unit
    steps = (3, 0, 2, 4, 1)
    await kit.accept(*(kit.message(queue, b"%d" % n, eta=start + n * kit.unit / 5) for n in steps))
    await kit.pass_time(kit.unit * 2)
    await kit.call(kit.coordinator.reap())
    equal(bodies(await worker.take(queue, count=5)), [b"0", b"1", b"2", b"3", b"4"], "bodies in due order")


async def check_delayed_do_not_hold_back_ready(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    late = kit.message(queue, b"late", eta=kit.now() + 1000)
    await kit.accept(late, kit.message(queue, b"now"), late)
    equal(bodies(await worker.take(queue)), [b"now"], "what is ready")
    await worker.nothing(queue)
    within(await kit.depth(queue), (3, None), "depth: one leased, two delayed")


async def check_same_id_delayed_twice_is_one_task(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"), eta=kit.now() + kit.unit)
    await kit.accept(message)
    await kit.publish(message)
    within(await kit.depth(queue), (1, None), "depth after a repeated delayed publish")
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    await worker.take(queue, count=1 if kit.features.knows_ids else 2)
    await worker.nothing(queue)


async def check_retry_waits_and_keeps_its_id(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    when = kit.now() + kit.unit * 2
    await worker.finish(delivery, RetryAt(when, retried(kit, queue, delivery.message)))
    within(await kit.depth(queue), (1, None), "depth with a task that waits for its retry")
    await not_before(kit, worker, queue, when)
    await kit.pass_time(kit.unit * 2.5)
    await kit.call(kit.coordinator.reap())
    again = await worker.take_one(queue)
    equal(worker.id_of(again), task_id, "id of a retried task")
    equal(again.message and (again.message.body, again.message.retries), (b"again", 1), "the retried message")


async def check_some_retry_later_while_neighbours_go_on(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 4)
    batch = await worker.take(queue, count=4)
    when = kit.now() + kit.unit
    await worker.settle(
        *(Settlement(batch[n].receipt, RetryAt(when + n * kit.unit / 10, batch[n].message)) for n in (2, 0))
    )
    await worker.finish(batch[1])
    await worker.finish(batch[3])
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    equal(bodies(await worker.take(queue, count=2)), [b"0", b"2"], "retries in due order")


async def check_waiting_step_wakes_when_something_is_due(kit: Kit) -> None:
    if await undelayed(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(kit.message(queue, b"due", eta=kit.now() + kit.unit))
    waiting = kit.start(worker.committer.step([], worker.demand(queue, wait=60.0)), worker.engine)
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    step = await waiting.end()
    equal(bodies(step.deliveries), [b"due"], "what a waiting step brought")


def retried(kit: Kit, queue: str, message: Message | None) -> Message:
    return kit.message(queue, b"again", id=message and message.id, retries=1)


CHECKS = (
    check_never_early,
    check_a_past_eta_is_ready,
    check_due_order,
    check_delayed_do_not_hold_back_ready,
    check_same_id_delayed_twice_is_one_task,
    check_retry_waits_and_keeps_its_id,
    check_some_retry_later_while_neighbours_go_on,
    check_waiting_step_wakes_when_something_is_due,
)
