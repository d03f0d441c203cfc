"""Effects: they hold together with the verdict, happen once, and a worker that lost its lease causes none."""

from __future__ import annotations

from penstock.broker import DONE, LEASE_LOST, Accepted, Conflict, Duplicate, keeps_guard
from penstock.delivery import ACK, Dead, Delivery, Settlement
from penstock.effects import MOST_GATHERED, Effect, Join, Publish, Put, ReleaseKey
from penstock.errors import ConfigError
from penstock.message import Unique
from penstock.outcome import State
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import Worker, bodies, success


async def held(kit: Kit, queue: str, count: int) -> tuple[Worker, list[Delivery]]:
    """A worker that holds `count` new tasks of `queue`."""
    worker = await kit.worker()
    await kit.fill(queue, count)
    return worker, await worker.take(queue, count=count)


async def without(kit: Kit, effect: Effect) -> bool:
    """True for an engine without this kind of effect, after making sure that it refuses the settlement whole."""
    kind = type(effect).__name__
    if kind in kit.features.effects:
        return False
    if isinstance(effect, Publish) and not kit.fused:
        return False  # the ordered committer publishes it
    elsewhere = kit.results is not kit.engine and kit.results.broker.features.coordination
    if isinstance(effect, Put) and elsewhere and not kit.features.coordination:
        return True  # the ordered committer puts it beside the results
    worker, [delivery] = await held(kit, await kit.queue(), 1)
    try:
        await worker.settle(Settlement(delivery.receipt, ACK, success(kit), (effect,)))
    except ConfigError:
        [report] = await kit.fetch(worker.id_of(delivery))
        expect(not report.state.terminal, f"a settlement was refused, but its outcome stored: {report.state}")
        await worker.finish(delivery)
        return True
    raise Violation(f"effect {kind} is not among the features of {kit.features.engine}, but was not refused")


async def check_follow_up_comes_with_the_verdict(kit: Kit) -> None:
    queue = await kit.queue()
    worker, [delivery] = await held(kit, queue, 1)
    next_id = f"{worker.id_of(delivery)}-next"
    follow_up = Publish(kit.message(queue, b"next", id=next_id))
    await worker.finish(delivery, outcome=success(kit), effects=[follow_up])
    within(await kit.depth(queue), (1, None), "depth: one ended, one follows")
    taken = await worker.take(queue)
    equal((worker.ids_of(taken), bodies(taken)), ([next_id], [b"next"]), "the follow-up")


async def check_a_repeated_follow_up_is_one_task(kit: Kit) -> None:
    queue = await kit.queue()
    worker, [one, two] = await held(kit, queue, 2)
    follow_up = Publish(kit.message(queue, id=kit.name("id")))
    await worker.finish(one, effects=[follow_up, follow_up])
    await worker.finish(two, effects=[follow_up])
    # An engine that does not know ids publishes it each time, and never less than once.
    await worker.take(queue, count=1 if kit.features.knows_ids else 3)
    await worker.nothing(queue)


async def check_a_follow_up_of_no_settlement(kit: Kit) -> None:
    queue = await kit.queue()
    worker = await kit.worker()
    messages = [kit.message(queue, b"%d" % number, id=kit.name("id")) for number in range(2)]
    answers = [
        (await kit.call(worker.broker.follow_up([message], PUBLISH_TIMEOUT), worker.engine))[0] for message in messages
    ]
    ids = [kit.public_id(instance(answer, Accepted, "answer to a follow-up").key) for answer in answers]
    equal(ids, [message.id for message in messages], "ids of follow-ups")
    [again] = await kit.call(worker.broker.follow_up(messages[:1], PUBLISH_TIMEOUT), worker.engine)
    instance(again, Duplicate if kit.features.knows_ids else Accepted, "a repeated follow-up")
    equal(bodies(await worker.take(queue, count=2)), [b"0", b"1"], "follow-ups in order")


async def check_a_task_that_was_acknowledged_may_be_tried_again(kit: Kit) -> None:
    """So retries of what is acknowledged before it starts go on under the same id, whoever chose that."""
    if kit.notes_starts:
        return
    worker = await kit.worker()
    for chosen in (None, kit.name("id")):
        queue = await kit.queue()
        [task_id] = await kit.accept(kit.message(queue, id=chosen))
        await worker.finish(await worker.take_one(queue))
        for retries, delay in ((1, 0.0), (2, kit.unit if kit.features.delay else 0.0)):
            eta = kit.now() + delay if delay else None
            again = kit.message(queue, b"%d" % retries, id=task_id, retries=retries, eta=eta)
            [answer] = await kit.call(worker.broker.follow_up([again], PUBLISH_TIMEOUT), worker.engine)
            equal(kit.public_id(instance(answer, Accepted, "a further try").key), task_id, "id of a further try")
            if kit.features.knows_ids:
                [answer] = await kit.call(worker.broker.follow_up([again], PUBLISH_TIMEOUT), worker.engine)
                equal(kit.public_id(instance(answer, Duplicate, "a try that waits").key), task_id, "id of that")
            await kit.pass_time(delay * 1.25)
            await kit.call(kit.coordinator.reap())
            delivery = await worker.take_one(queue)
            equal(worker.id_of(delivery), task_id, "id of the try that is delivered")
            equal(bodies([delivery]), [b"%d" % retries], "its body")
            await worker.finish(delivery, outcome=success(kit) if retries == 2 else None)
        [report] = await kit.fetch(task_id)
        equal(report.state, State.SUCCESS, "state after the last try")
        if kit.features.knows_ids and kit.fused:
            last = kit.message(queue, id=task_id, retries=3)
            [answer] = await kit.call(worker.broker.follow_up([last], PUBLISH_TIMEOUT), worker.engine)
            instance(answer, Duplicate, "a try of what has ended with an outcome")
        await worker.nothing(queue)


async def check_follow_ups_go_with_every_final_verdict_and_to_any_queue(kit: Kit) -> None:
    queue, other = await kit.queue(), kit.name("elsewhere")
    worker, [delivery] = await held(kit, queue, 1)
    await worker.finish(delivery, Dead("no use"), effects=[Publish(kit.message(other, b"on error", id=kit.name("id")))])
    equal(bodies(await worker.take(other)), [b"on error"], "the follow-up of a dead task")


async def check_delayed_follow_up(kit: Kit) -> None:
    if not kit.features.delay:
        return
    queue = await kit.queue()
    worker, [delivery] = await held(kit, queue, 1)
    follow_up = Publish(kit.message(queue, b"later", id=kit.name("id"), eta=kit.now() + kit.unit * 2))
    await worker.finish(delivery, effects=[follow_up])
    within(await kit.depth(queue), (1, None), "depth with a delayed follow-up")
    await kit.pass_time(kit.unit * 2.5)
    await kit.call(kit.coordinator.reap())
    equal(bodies(await worker.take(queue)), [b"later"], "a delayed follow-up")


async def check_many_follow_ups_come_in_order(kit: Kit) -> None:
    queue = await kit.queue()
    worker, [delivery] = await held(kit, queue, 1)
    name = kit.name("id")
    follow_ups = [Publish(kit.message(queue, b"%d" % n, id=f"{name}-{n}")) for n in range(5)]
    await worker.finish(delivery, effects=follow_ups)
    equal(bodies(await worker.take(queue, count=5)), [b"0", b"1", b"2", b"3", b"4"], "follow-ups in order")


async def check_join_publishes_once_with_values_in_order(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    then = kit.message(after, b"", id=kit.name("then"))
    join = Join(kit.name("join"), 0, b"null", 3, then)
    if await without(kit, join):
        return
    worker, members = await held(kit, queue, 3)
    for index in (2, 0):
        await worker.finish(
            members[index], outcome=success(kit), effects=[Join(join.id, index, b'"%d"' % index, 3, then)]
        )
        await worker.nothing(after)
    await worker.finish(members[1], outcome=success(kit), effects=[Join(join.id, 1, b"[1]", 3, then)])
    taken = await worker.take(after)
    equal(worker.ids_of(taken), [then.id], "id of what follows the join")
    equal(bodies(taken), [b'["0",[1],"2"]'], "the values of a join, in order")
    await worker.nothing(after)


async def check_join_in_messagepack(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    then = kit.message(after, b"", id=kit.name("then"), content_type="msgpack")
    join = Join(kit.name("join"), 0, b"\x01", 2, then)
    if await without(kit, join):
        return
    worker, members = await held(kit, queue, 2)
    await worker.finish(members[0], effects=[Join(join.id, 1, b"\x02", 2, then)])
    await worker.finish(members[1], effects=[join])
    equal(bodies(await worker.take(after)), [b"\xdd\0\0\0\2\x01\x02"], "an array in MessagePack")


async def check_join_of_more_than_a_message_takes(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    then = kit.message(after, b"", id=kit.name("then"))
    join = Join(kit.name("join"), 0, b'"%s"' % (b"x" * (MOST_GATHERED // 2)), 2, then)
    if await without(kit, join):
        return
    worker, members = await held(kit, queue, 2)
    await worker.finish(members[0], effects=[join])
    await worker.finish(members[1], effects=[Join(join.id, 1, join.value, 2, then)])
    equal(bodies(await worker.take(after)), [b""], "the body of what follows too large a join")


async def check_join_ignores_a_repeated_index(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    then = kit.message(after, b"", id=kit.name("then"))
    join = Join(kit.name("join"), 0, b"1", 2, then)
    if await without(kit, join):
        return
    worker, members = await held(kit, queue, 5)
    await worker.finish(members[0], effects=[join])
    await worker.finish(members[1], effects=[Join(join.id, 0, b"9", 2, then)])
    await worker.nothing(after)
    await worker.finish(members[2], effects=[Join(join.id, 1, b"2", 2, then)])
    [delivery] = await worker.take(after)
    equal(bodies([delivery]), [b"[1,2]"], "the first value of each index")
    await worker.finish(delivery)
    await worker.finish(members[3], effects=[Join(join.id, 1, b"3", 2, then)])
    await worker.finish(members[4], effects=[Join(join.id, 0, b"4", 2, then)])
    await worker.nothing(after)


async def check_join_of_members_in_one_step_and_by_several_workers(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    then = kit.message(after, b"", id=kit.name("then"))
    join_id = kit.name("join")
    if await without(kit, Join(join_id, 0, b"0", 4, then)):
        return
    one, two = await kit.worker("one"), await kit.worker("two")
    await kit.fill(queue, 4)
    mine, yours = await one.take(queue, count=2), await two.take(queue, count=2)
    for worker, first, deliveries in ((one, 0, mine), (two, 2, yours)):
        settled = await worker.settle(
            *(
                Settlement(delivery.receipt, ACK, None, (Join(join_id, first + n, b"%d" % (first + n), 4, then),))
                for n, delivery in enumerate(deliveries)
            )
        )
        equal(settled, [DONE, DONE], "settlements with joins in one step")
    equal(bodies(await one.take(after)), [b"[0,1,2,3]"], "the values of a join")
    await one.nothing(after)


async def check_join_of_one(kit: Kit) -> None:
    queue, after = await kit.queue(), await kit.queue()
    join = Join(kit.name("join"), 0, b"7", 1, kit.message(after, b"", id=kit.name("then")))
    if await without(kit, join):
        return
    worker, [delivery] = await held(kit, queue, 1)
    await worker.finish(delivery, effects=[join])
    equal(bodies(await worker.take(after)), [b"[7]"], "a join of one")


async def check_join_is_always_admitted(kit: Kit) -> None:
    queue = await kit.queue()
    after = await kit.queue(max_length=1) if kit.features.bound == "exact" else await kit.queue()
    join = Join(kit.name("join"), 0, b"7", 1, kit.message(after, b"", id=kit.name("then")))
    if await without(kit, join):
        return
    await kit.fill(after, 1)
    worker, [delivery] = await held(kit, queue, 1)
    await worker.finish(delivery, effects=[join])
    equal(bodies(await worker.take(after, count=2)), [b"0", b"[7]"], "what follows a join, in a full queue")


async def check_release_key(kit: Kit) -> None:
    key = kit.name("key")
    if await without(kit, ReleaseKey(key)) or not keeps_guard(kit.features, Unique(key)):
        return
    queue, other = await kit.queue(), await kit.queue()
    unique = kit.message(queue, guards=(Unique(key),))
    await kit.accept(unique)
    worker, [stranger] = await held(kit, other, 1)
    await worker.finish(stranger, effects=[ReleaseKey(key)])
    instance((await kit.publish(unique))[0], Conflict, "publish after a stranger's ReleaseKey")
    await worker.finish(await worker.take_one(queue), effects=[ReleaseKey(key)])
    await kit.accept(unique)


async def check_put(kit: Kit) -> None:
    key = kit.name("state")
    if await without(kit, Put(key, b"")):
        return
    worker, [one, two, three, four, five] = await held(kit, await kit.queue(), 5)
    await worker.finish(one, effects=[Put(key, b"first", 0)])
    value, version = await state(kit, key)
    equal(value, b"first", "a value put where there was none")
    await worker.finish(two, outcome=success(kit), effects=[Put(key, b"stale", 0)])
    equal(await state(kit, key), (b"first", version), "a value after a Put with a stale version")
    await worker.finish(three, effects=[Put(key, b"second", version)])
    value, newer = await state(kit, key)
    equal((value, newer != version), (b"second", True), "a value put with its version")
    await worker.finish(four, effects=[Put(key, b"third")])
    equal((await state(kit, key))[0], b"third", "a value put whatever the version")
    await worker.finish(five, effects=[Put(key, None)])
    equal(await kit.call(kit.coordinator.get(key)), None, "a value that was deleted")


async def check_a_lost_lease_causes_no_effects(kit: Kit) -> None:
    queue, after, key = await kit.queue(), await kit.queue(), kit.name("key")
    then = kit.message(after, b"", id=kit.name("then"))
    effects: list[Effect] = [Join(kit.name("join"), 0, b"1", 1, then), Put(key, b"ghost"), ReleaseKey(key)]
    for effect in effects:
        if await without(kit, effect):
            return
    zombie = await kit.worker("zombie")
    unique = kit.message(queue, guards=(Unique(key),) if "Unique" in kit.features.guards else ())
    await kit.accept(unique)
    old = await zombie.take_one(queue, lease=kit.unit)
    await kit.expire(zombie)
    ghost = Settlement(old.receipt, ACK, success(kit), tuple(effects))
    equal(await zombie.settle(ghost), [LEASE_LOST], "a zombie's settlement")
    await zombie.nothing(after)
    equal(await kit.call(kit.coordinator.get(key)), None, "a zombie's Put")
    if unique.guards:
        instance((await kit.publish(unique))[0], Conflict, "publish after a zombie's ReleaseKey")
    heir = await kit.worker("heir")
    await heir.finish(await heir.take_one(queue), outcome=success(kit), effects=effects)
    equal(bodies(await heir.take(after)), [b"[1]"], "the join of the real holder")


async def check_unsupported_effects_are_refused(kit: Kit) -> None:
    message = kit.message(await kit.queue(), id=kit.name("id"))
    for effect in (Publish(message), Join(kit.name("join"), 0, b"1", 2, message), ReleaseKey("key"), Put("key", b"1")):
        await without(kit, effect)


async def state(kit: Kit, key: str) -> tuple[bytes, int]:
    found = await kit.call(kit.coordinator.get(key))
    if found is None:
        raise Violation(f"the shared state has no {key!r}")
    return found


CHECKS = (
    check_follow_up_comes_with_the_verdict,
    check_a_repeated_follow_up_is_one_task,
    check_a_follow_up_of_no_settlement,
    check_a_task_that_was_acknowledged_may_be_tried_again,
    check_follow_ups_go_with_every_final_verdict_and_to_any_queue,
    check_delayed_follow_up,
    check_many_follow_ups_come_in_order,
    check_join_publishes_once_with_values_in_order,
    check_join_in_messagepack,
    check_join_of_more_than_a_message_takes,
    check_join_ignores_a_repeated_index,
    check_join_of_members_in_one_step_and_by_several_workers,
    check_join_of_one,
    check_join_is_always_admitted,
    check_release_key,
    check_put,
    check_a_lost_lease_causes_no_effects,
    check_unsupported_effects_are_refused,
)
