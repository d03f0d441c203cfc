"""At most once: what `penstock.worker.early` relies on, and what callers see of it."""

from __future__ import annotations

from penstock.broker import Duplicate, Held
from penstock.delivery import ACK, Delivery, RetryAt
from penstock.effects import Put
from penstock.message import start_key
from penstock.outcome import State
from penstock.testing.conformance.expect import equal, instance
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import Worker, success


async def check_a_noted_start_is_shown_until_its_end(kit: Kit) -> None:
    if not kit.notes_starts:
        return
    queue, worker, name, told = await kit.queue(), await kit.worker(), kit.name("once"), Told()
    message = kit.message(queue, id=name)
    await kit.accept(message)
    subscription = kit.backend.subscribe([name], told)
    delivery = await begin(kit, worker, queue)
    equal(await state(kit, name), State.STARTED, "state of a task whose start is noted")
    instance((await kit.publish(message))[0], Duplicate, "answer to a repeat while it runs")
    again = kit.message(queue, id=name, retries=1)
    await worker.finish(delivery, RetryAt(kit.now(), again), effects=[Put(start_key(name), None)])
    equal(await state(kit, name), State.RETRY, "state of a task to retry, without its note")
    delivery = await begin(kit, worker, queue)
    equal(await state(kit, name), State.STARTED, "state of its second run")
    equal(told.so_far(), [], "what was told before the end")
    await worker.finish(delivery, ACK, success(kit, b"2"), [Put(start_key(name), None)])
    equal([report.state for report in await kit.threaded(told.wait)], [State.SUCCESS], "what was told of the end")
    subscription.close()
    await kit.backend_call(kit.backend.forget([name]))
    equal((await kit.fetch(name))[0].state, State.UNKNOWN, "state of a forgotten task")


async def check_a_noted_start_outlives_its_worker(kit: Kit) -> None:
    if not kit.notes_starts:
        return
    queue, name = await kit.queue(), kit.name("once")
    await kit.accept(kit.message(queue, id=name))
    dying, heir = await kit.worker("dying"), await kit.worker("heir")
    await begin(kit, dying, queue)
    await kit.kill(dying)
    await kit.call(kit.coordinator.bury(dying.id))
    delivery = await heir.take_one(queue)
    equal(await note(kit, heir, name), None, "version of a second note")
    await heir.finish(delivery, effects=[Put(start_key(name), None)])
    equal(await kit.call(kit.coordinator.get(start_key(name))), None, "a note after the end")


async def begin(kit: Kit, worker: Worker, queue: str) -> Delivery:
    """What a worker does before such a task runs."""
    delivery = await worker.take_one(queue)
    worker.start(delivery)
    instance(await note(kit, worker, worker.id_of(delivery)), int, "version of a note")
    [lease] = await kit.call(worker.broker.extend([delivery.receipt], kit.unit), worker.engine)
    instance(lease, Held, "lease after the note")
    return delivery


async def note(kit: Kit, worker: Worker, name: str) -> int | None:
    return await kit.call(worker.engine.coordinator.put(start_key(name), worker.id.encode(), 0), worker.engine)


async def state(kit: Kit, name: str) -> State:
    """Where results are elsewhere, the broker knows what has not ended."""
    [report] = await kit.call(kit.engine.backend.fetch([name]))
    return report.state


CHECKS = (check_a_noted_start_is_shown_until_its_end, check_a_noted_start_outlives_its_worker)
