"""Pausing a queue: nothing of it is handed out, nothing is lost, and everybody knows."""

from __future__ import annotations

import functools
import time

from penstock.broker import Full
from penstock.delivery import RELEASE, RetryAt
from penstock.testing.conformance.area_inspect import info
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import bodies

LOOK = 0.2
"""Seconds in which who was woken has looked, and sleeps again."""
PROMPT = 3.0
"""Seconds: less than an engine waits before it looks without being woken."""


async def pauses(kit: Kit, queue: str) -> bool:
    """Pause the queue; `False` where the engine cannot, and says so to both verbs."""
    if not kit.features.pause:
        await kit.refused(kit.inspect.pause(queue), "pause")
        await kit.refused(kit.inspect.resume(queue), "pause")
        return False
    equal(await kit.call(kit.inspect.pause(queue)), True, "whether pausing changed a queue that was not paused")
    return True


async def check_a_paused_queue_hands_out_nothing_and_accepts(kit: Kit) -> None:
    queue, other, worker = await kit.queue(), await kit.queue(), await kit.worker()
    await kit.fill(queue, 2)
    if not await pauses(kit, queue):
        return
    await kit.accept(kit.message(queue, b"2"), kit.message(other, b"other"))
    within(await kit.depth(queue), (3, None), "depth of a paused queue")
    equal(bodies(await worker.take(queue, other)), [b"other"], "what is delivered of a paused queue and another")
    await worker.nothing(queue, other)
    equal(await kit.call(kit.inspect.resume(queue)), True, "whether resuming changed a paused queue")
    equal(sorted(bodies(await worker.take(queue, count=3))), [b"0", b"1", b"2"], "what is delivered after it")


async def check_what_is_leased_goes_on_and_what_comes_back_waits(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    ends, released, again = await worker.take(queue, count=3)
    if not await pauses(kit, queue):
        return
    await worker.finish(ends)
    await worker.finish(released, RELEASE)
    await worker.finish(again, RetryAt(kit.now(), again.message))
    await worker.nothing(queue)
    within(await kit.depth(queue), (2, None), "depth of a paused queue to which two came back")
    await kit.call(kit.inspect.resume(queue))
    equal(sorted(bodies(await worker.take(queue, count=2))), [b"1", b"2"], "what is delivered after it")


async def check_what_becomes_due_waits_too(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    if not await pauses(kit, queue) or not kit.features.delay:
        return
    await kit.accept(kit.message(queue, b"due", eta=kit.now() + kit.unit))
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    await worker.nothing(queue)
    await kit.call(kit.inspect.resume(queue))
    equal(bodies(await worker.take(queue)), [b"due"], "what is delivered after it")


async def check_a_pause_outlives_who_asked_for_it(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    if not kit.features.pause:
        return
    console = kit.second()
    await kit.call(console.inspect.pause(queue), console)
    if console is not kit.engine:
        console.close()
    later = kit.second()
    await kit.accept(kit.message(queue))
    await worker.nothing(queue)
    shown = {one.name: one.paused for one in await kit.call(later.inspect.queues(), later)}
    equal(shown.get(queue), True, "whether another handle sees the pause")
    equal(await kit.call(later.inspect.resume(queue), later), True, "whether another handle can end it")
    expect(not (await info(kit, queue)).paused, "a resumed queue is shown as such")
    await worker.take(queue)


async def check_resuming_wakes_who_waits(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    if not await pauses(kit, queue):
        return
    waiting = kit.start(worker.committer.step([], worker.demand(queue, wait=60.0)), worker.engine)
    await kit.fill(queue, 1)
    await kit.threaded(functools.partial(time.sleep, LOOK))
    expect(not waiting.ended(), "a step waits while its queue is paused")
    resumed = time.monotonic()
    await kit.call(kit.inspect.resume(queue))
    equal(bodies((await waiting.end()).deliveries), [b"0"], "what a step gets that waited for a paused queue")
    expect(time.monotonic() - resumed < PROMPT, "who waits is woken, and does not only look from time to time")


async def check_a_paused_queue_keeps_its_bound(kit: Kit) -> None:
    queue = await kit.queue(2)
    if not await pauses(kit, queue) or kit.features.bound != "exact":
        return
    await kit.fill(queue, 2)
    [answer] = await kit.publish(kit.message(queue))
    instance(answer, Full, "answer to a publish into a paused queue that is full")


async def check_pausing_twice_is_pausing_once(kit: Kit) -> None:
    queue = await kit.queue()
    if not await pauses(kit, queue):
        return
    equal(await kit.call(kit.inspect.pause(queue)), False, "whether a second pause changed anything")
    equal(await kit.call(kit.inspect.resume(queue)), True, "whether resuming did")
    equal(await kit.call(kit.inspect.resume(queue)), False, "whether a second resuming did")


async def check_a_queue_can_be_paused_before_its_first_use(kit: Kit) -> None:
    unused, unknown, worker = kit.name("unused"), kit.name("unknown"), await kit.worker()
    if not await pauses(kit, unused):
        return
    equal(await kit.call(kit.inspect.resume(unknown)), False, "whether resuming changed a queue that is not there")
    names = [one.name for one in await kit.call(kit.inspect.queues())]
    equal((unused in names, unknown in names), (True, False), "whether they are listed")
    await kit.fill(unused, 1)
    await worker.nothing(unused)


async def check_a_pause_is_of_one_namespace(kit: Kit) -> None:
    queue, worker, namespace = await kit.queue(), await kit.worker(), kit.name("tenant")
    if not kit.features.pause:
        return
    await kit.accept(kit.message(queue, b"ours"), kit.message(queue, b"theirs", namespace=namespace))
    await kit.call(kit.inspect.pause(queue, namespace))
    equal(bodies(await worker.take(queue)), [b"ours"], "what is delivered beside a paused namespace")
    want = worker.demand(queue, wait=kit.patience, namespace=namespace)
    equal(list((await worker.step([], want)).deliveries), [], "what is delivered of it")


CHECKS = (
    check_a_paused_queue_hands_out_nothing_and_accepts,
    check_what_is_leased_goes_on_and_what_comes_back_waits,
    check_what_becomes_due_waits_too,
    check_a_pause_outlives_who_asked_for_it,
    check_resuming_wakes_who_waits,
    check_a_paused_queue_keeps_its_bound,
    check_pausing_twice_is_pausing_once,
    check_a_queue_can_be_paused_before_its_first_use,
    check_a_pause_is_of_one_namespace,
)
