"""Looking into queues, and what people do to them: peek, purge, dead letters, damaged messages."""

from __future__ import annotations

from penstock import apart
from penstock.broker import Accepted, DeadLetter
from penstock.delivery import ACK, Dead, RetryAt, Settlement
from penstock.outcome import Outcome, State
from penstock.queue import Queue, QueueInfo
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import bodies, success

LOOKS = 100


async def info(kit: Kit, queue: str) -> QueueInfo:
    found = [one for one in await kit.call(kit.inspect.queues()) if one.name == queue]
    equal(len(found), 1, f"entries for {queue!r} in the list of queues")
    return found[0]


async def letters(kit: Kit, queue: str) -> list[DeadLetter]:
    return list(await kit.call(kit.inspect.dead_letters(queue)))


async def retry_dead(kit: Kit, *ids: str) -> int:
    return await kit.call(apart.retry_dead(kit.engine, kit.results, ids))


async def check_queues_show_their_bounds_and_counts(kit: Kit) -> None:
    # Without bounds of its own, an engine shows those that everybody has.
    bounded = kit.features.bound != "none"
    bound = (7, 12_345) if bounded else (Queue("any").max_length, Queue("any").max_bytes)
    queue, worker = await kit.queue(*bound), await kit.worker()
    await kit.fill(queue, 4)
    one, two = await worker.take(queue, count=2)
    await worker.finish(two)
    if kit.features.delay:
        await kit.accept(kit.message(queue, eta=kit.now() + 1000))
    found = await info(kit, queue)
    equal((found.max_length, found.max_bytes), bound, "bounds")
    delayed = int(kit.features.delay)
    for name, value, wanted in (
        ("ready", found.ready, 2),
        ("leased", found.leased, 1),
        ("delayed", found.delayed, delayed),
        ("depth", found.depth, 3 + delayed),
        ("dead", found.dead, 0),
        ("enqueued", found.enqueued, 4 + delayed),
        ("settled", found.settled, 1),
    ):
        within(value, (wanted, None), name)
    expect(found.bytes is None or found.bytes > 0, "bytes of what is there")
    await worker.finish(one)


async def check_oldest_age(kit: Kit) -> None:
    queue = await kit.queue()
    equal((await info(kit, queue)).oldest_age, None, "age in an empty queue")
    await kit.fill(queue, 1)
    await kit.pass_time(kit.unit)
    age = (await info(kit, queue)).oldest_age
    expect(age is None or age >= 0, f"an age is not negative, but was {age}")


async def check_what_was_delayed_is_not_old_when_it_is_due(kit: Kit) -> None:
    """Or a queue that refuses new work while it has old tasks would refuse it for what was meant to come late."""
    if not kit.features.delay:
        return
    queue = await kit.queue()
    now = kit.now()
    await kit.accept(kit.message(queue, sent=now, eta=now + 4 * kit.unit))
    await kit.pass_time(5 * kit.unit)
    await kit.call(kit.coordinator.reap())
    age = (await info(kit, queue)).oldest_age
    expect(
        age is None or age < 4 * kit.unit, f"it is due for one unit, but its age is {age / kit.unit if age else age}"
    )


async def check_what_has_come_due_is_ready_though_nobody_has_looked(kit: Kit) -> None:
    """Else whoever starts workers by what is ready would never start the first."""
    if not kit.features.delay:
        return
    queue = await kit.queue()
    await kit.accept(kit.message(queue, eta=kit.now() + kit.unit), kit.message(queue, eta=kit.now() + 1000))
    found = await info(kit, queue)
    for _ in range(LOOKS):  # some fold what has come due, or count, now and then
        if found.ready in (1, None):
            break
        await kit.pass_time(2 * kit.unit)
        found = await info(kit, queue)
    within(found.ready, (1, None), "ready")
    within(found.delayed, (1, None), "delayed")
    within(found.depth, (2, None), "depth")


async def check_peek_takes_nothing(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 5)
    peeked = await kit.call(kit.inspect.peek(queue, 3))
    equal([one.id for one in peeked], ids[:3], "ids peeked")
    equal([one.message and one.message.body for one in peeked], [b"0", b"1", b"2"], "bodies peeked")
    equal({one.state for one in peeked}, {"ready"}, "states peeked")
    within(await kit.depth(queue), (5, None), "depth after a peek")
    equal(worker.ids_of(await worker.take(queue, count=5)), ids, "what is delivered after a peek")


async def check_peek_shows_what_waits_and_where(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 2)
    await worker.take(queue)
    eta = kit.now() + 1000
    if kit.features.delay:
        await kit.accept(kit.message(queue, eta=eta))
    peeked = await kit.call(kit.inspect.peek(queue))
    states = [one.state for one in peeked]
    expect("ready" in states, f"a ready task is shown, among {states}")
    if kit.features.delay and kit.features.sees_delayed:
        dues = [one.due for one in peeked if one.state == "delayed"]
        expect(len(dues) == 1 and dues[0] is not None and abs(dues[0] - eta) < 1, f"one delayed task: {dues}")
    equal(list(await kit.call(kit.inspect.peek(kit.name("unused")))), [], "what is peeked in an unused queue")


async def check_purge_drops_what_waits(kit: Kit) -> None:
    queue, other, worker = await kit.queue(), await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 4)
    await kit.fill(other, 1)
    delivery = await worker.take_one(queue)
    delayed = await kit.accept(kit.message(queue, eta=kit.now() + 1000)) if kit.features.delay else []
    told = Told()
    subscription = kit.backend.subscribe([ids[1]], told)
    seen = delayed if kit.features.sees_delayed else []
    equal(await kit.call(kit.inspect.purge(queue)), 3 + len(seen), "messages purged")
    if kit.fused:
        [report] = await kit.threaded(told.wait)
        equal(report.state, State.REVOKED, "state told of a purged task")
    subscription.close()
    within(await kit.depth(queue), (1, None), "depth after a purge: the leased task")
    await worker.nothing(queue)
    await kit.ended_revoked(*ids[1:], *delayed)
    await worker.finish(delivery, outcome=success(kit))
    equal((await kit.fetch(ids[0]))[0].state, State.SUCCESS, "state of the leased task")
    equal(await kit.call(kit.inspect.purge(queue)), 0, "messages purged from an empty queue")
    await worker.take(other)
    await kit.fill(queue, 1)
    await worker.take(queue)


async def check_dead_letters_keep_the_message_and_the_reason(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.accept(kit.message(queue, b"one"), kit.message(queue, b"two"))
    one, two = await worker.take(queue, count=2)
    await worker.finish(one, Dead("no use"))
    await worker.finish(two)
    [letter] = await letters(kit, queue)
    equal((letter.id, letter.queue, letter.reason), (ids[0], queue, "no use"), "the dead letter")
    equal(letter.message and letter.message.body, b"one", "its message")
    expect(abs(letter.died - kit.now()) < 60, "when it died")
    within((await info(kit, queue)).dead, (1, None), "dead letters counted")
    equal(await letters(kit, await kit.queue()), [], "dead letters of another queue")


async def check_retried_dead_letter_has_the_same_id_and_fresh_counts(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    counts = {"penstock-unknown": "10", "from": "me"}
    [task_id] = await kit.accept(kit.message(queue, b"again", retries=3, headers=counts))
    delivery = await worker.take_one(queue)
    await worker.finish(delivery, RetryAt(kit.now(), delivery.message, charge=True))
    failure = Outcome(State.FAILURE, b'"first"', kit.now())
    await worker.finish(await worker.take_one(queue), Dead("no use"), failure)
    equal(await retry_dead(kit, task_id), 1, "dead letters retried")
    equal(await letters(kit, queue), [], "dead letters after a retry")
    within(await kit.depth(queue), (1, None), "depth after a retry")
    expect(not (await kit.fetch(task_id))[0].state.terminal, "a retried task has not ended")
    back = await worker.take_one(queue)
    message = back.message
    equal(
        (worker.id_of(back), message and (message.body, message.retries, message.attempts, message.headers)),
        (task_id, (b"again", 0, 0, {"from": "me"})),
        "the retried dead letter",
    )
    await worker.finish(back, ACK, success(kit, b'"second"'))
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.SUCCESS, b'"second"'), "its new outcome")
    equal(await retry_dead(kit, task_id, kit.name("stranger")), 0, "strangers retried")
    equal((await kit.fetch(task_id))[0].state, State.SUCCESS, "state of a task that was no dead letter any more")


async def check_dropped_dead_letters_are_gone(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 3)
    for delivery in await worker.take(queue, count=3):
        await worker.finish(delivery, Dead("no use"))
    equal(await kit.call(kit.inspect.drop_dead(ids[:2])), 2, "dead letters dropped")
    equal([letter.id for letter in await letters(kit, queue)], ids[2:], "what is left")
    equal(await kit.call(kit.inspect.drop_dead(ids[:2])), 0, "dead letters dropped again")
    equal(await kit.call(kit.inspect.retry_dead(ids[:2])), 0, "dropped dead letters retried")
    await worker.nothing(queue)


async def check_the_list_of_dead_letters_is_bounded(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 4)
    for delivery in await worker.take(queue, count=4):
        await worker.finish(delivery, Dead("no use"))
    equal(len(await kit.call(kit.inspect.dead_letters(queue, 3))), 3, "dead letters listed with a limit of 3")


async def check_namespaces_are_apart(kit: Kit) -> None:
    queue, worker, namespace = await kit.queue(), await kit.worker(), kit.name("tenant")
    await kit.call(kit.inspect.declare([Queue(queue)], namespace))
    await kit.accept(kit.message(queue, b"theirs", namespace=namespace))
    within(await kit.depth(queue), (0, None), "depth in the other namespace")
    within(await kit.call(kit.broker.depth(queue, namespace)), (1, None), "depth in its namespace")
    await worker.nothing(queue)
    found = await kit.call(kit.inspect.queues(None))
    equal(sorted(one.namespace for one in found if one.name == queue), ["", namespace], "namespaces listed")
    equal([one.name for one in await kit.call(kit.inspect.queues(namespace))], [queue], "queues of the namespace")
    want = worker.demand(queue, wait=kit.patience, namespace=namespace)
    equal(bodies((await worker.step([], want)).deliveries), [b"theirs"], "what is delivered in its namespace")


async def check_a_damaged_message_is_delivered_as_damage(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    answers = await kit.publish(kit.message(queue, b"good"), kit.message(queue, b"bad"), kit.message(queue, b"fine"))
    keys = [instance(answer, Accepted, "answer").key for answer in answers]
    if not await kit.corrupt(keys[1]):
        return
    taken = await worker.take(queue, count=3)
    equal(worker.ids_of(taken), [kit.public_id(key) for key in keys], "ids, damaged or not")
    equal(bodies(taken), [b"good", b"fine"], "the readable ones")
    damaged = taken[1]
    if damaged.message is not None or not damaged.damage:
        raise Violation(f"a damaged message says so, but came as {damaged!r}")
    expect(damaged.raw, "a damaged message brings its bytes")
    await worker.finish(damaged, RetryAt(kit.now(), charge=True))
    [again] = await worker.take(queue)
    equal((again.message, again.attempts), (None, 1), "a damaged message that was put back")
    settled = await worker.settle(Settlement(again.receipt, Dead("damaged")))
    equal(len(settled), 1, "answers")
    [letter] = await letters(kit, queue)
    equal((letter.id, letter.message, letter.reason), (kit.public_id(keys[1]), None, "damaged"), "the dead letter")
    equal(letter.raw, damaged.raw, "its bytes are kept")


CHECKS = (
    check_queues_show_their_bounds_and_counts,
    check_oldest_age,
    check_what_was_delayed_is_not_old_when_it_is_due,
    check_what_has_come_due_is_ready_though_nobody_has_looked,
    check_peek_takes_nothing,
    check_peek_shows_what_waits_and_where,
    check_purge_drops_what_waits,
    check_dead_letters_keep_the_message_and_the_reason,
    check_retried_dead_letter_has_the_same_id_and_fresh_counts,
    check_dropped_dead_letters_are_gone,
    check_the_list_of_dead_letters_is_bounded,
    check_namespaces_are_apart,
    check_a_damaged_message_is_delivered_as_damage,
)
