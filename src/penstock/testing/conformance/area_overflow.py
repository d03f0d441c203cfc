"""Full queues that shed (`Queue.overflow`, `penstock.shedding`): room is made by what waits longest, or counts least;
nothing is lost, nothing that was begun is touched, and who waits is told.

An engine refuses the policies that it does not have: see `shedding`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from penstock import broker
from penstock.broker import Accepted, Answer, DeadLetter, Duplicate, keeps_guard
from penstock.codec.failures import rebuild
from penstock.delivery import ACK, RELEASE, RetryAt, Settlement
from penstock.errors import TaskShed, Unsupported
from penstock.message import Limit, Message, Options, Place, Unique, beginning_id, node_id
from penstock.outcome import State
from penstock.queue import MAX_BYTES, OVERFLOWS, Queue, QueueInfo
from penstock.shedding import DROP_OLDEST, SHED_LOWEST, SHEDDING
from penstock.testing.conformance.area_bound import full
from penstock.testing.conformance.area_inspect import info, letters, retry_dead
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import success

PRODUCERS, EACH = 4, 12
"""Who race for a full queue, and how often each publishes."""


async def shedding(kit: Kit, overflow: str) -> bool:
    """Whether the engine has this policy; it is refused otherwise, when it is declared."""
    if overflow in kit.features.overflow:
        return True
    try:
        broker.check_queues(kit.features, [Queue(kit.name("queue"), overflow=overflow)])  # type: ignore[arg-type]  # any of them
    except Unsupported:
        return False
    raise Violation(f"overflow={overflow!r} is not among the features, but was not refused")


async def declared(kit: Kit, overflow: str, max_length: int, max_bytes: int = MAX_BYTES, queue: str = "") -> str:
    """A queue with this policy, new where it has no name."""
    name = queue or kit.name("queue")
    bounded = Queue(name, max_length, max_bytes, overflow)  # type: ignore[arg-type]  # any of them
    await kit.call(kit.inspect.declare([bounded]))
    return name


async def came(kit: Kit, queue: str, *priorities: int, **fields: Any) -> list[str]:
    """Publish one task of each priority, one after the other, each sent a second after the one before; their ids. The
    bodies are the numbers of the tasks."""
    ids: list[str] = []
    for number, priority in enumerate(priorities):
        sent = kit.now() - 1000 + number
        ids += await kit.accept(kit.message(queue, b"%d" % number, priority=priority, sent=sent, **fields))
    return ids


async def dead_ids(kit: Kit, queue: str) -> set[str]:
    return {letter.id for letter in await letters(kit, queue)}


async def shed(kit: Kit, queue: str, wanted: Sequence[str], what: str) -> list[DeadLetter]:
    """The dead letters of a queue, which must be exactly these tasks, and say so."""
    found = await letters(kit, queue)
    equal(sorted(letter.id for letter in found), sorted(wanted), what)
    for letter in found:
        expect(letter.reason.startswith("shed: ") and repr(queue) in letter.reason, f"the reason was {letter.reason!r}")
    counts = await info(kit, queue)
    equal(counts.shed, len(wanted), f"{what}: tasks counted as shed")
    return found


async def refused_whole(kit: Kit, queue: str, before: QueueInfo, *messages: Message) -> None:
    """The messages find no room, and nothing has changed."""
    full(await kit.publish(*messages), queue, "a publish for which nothing may be shed")
    after = await info(kit, queue)
    equal((after.depth, after.shed, after.dead), (before.depth, before.shed, before.dead), "depth, shed and dead")


async def check_the_oldest_makes_room(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue, worker = await declared(kit, DROP_OLDEST, 3), await kit.worker()
    ids = await kit.fill(queue, 3)
    await shed(kit, queue, [], "nothing is shed while there is room")
    ids += await kit.fill(queue, 1)
    [letter] = await shed(kit, queue, ids[:1], "the first task, for the fourth")
    equal(letter.message and letter.message.body, b"0", "the message of the dead letter")
    ids += await kit.fill(queue, 1)
    await shed(kit, queue, ids[:2], "the first two tasks, for two")
    within(await kit.depth(queue), (3, None), "depth of a queue that was full")
    equal(worker.ids_of(await worker.take(queue, count=3)), ids[2:], "what is delivered")
    await worker.nothing(queue)


async def check_the_oldest_of_all_priorities_and_partitions_makes_room(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    if kit.features.priority:
        queue = await declared(kit, DROP_OLDEST, 4)
        ids = await came(kit, queue, 9, 0, 5, 0)
        await kit.accept(*(kit.message(queue, priority=0, sent=kit.now()) for _ in range(3)))
        await shed(kit, queue, ids[:3], "the oldest, whatever their priority")
    if kit.features.partition:
        queue = await declared(kit, DROP_OLDEST, 3)
        ids = []
        for number, partition in enumerate(("b", "a", "b")):
            ids += await kit.accept(kit.message(queue, partition=partition, sent=kit.now() - 100 + number))
        await kit.accept(kit.message(queue, partition="c", sent=kit.now()))
        await kit.accept(kit.message(queue, partition="c", sent=kit.now()))
        await shed(kit, queue, ids[:2], "the oldest of all partitions")


async def check_the_lowest_priority_makes_room(kit: Kit) -> None:
    if not await shedding(kit, SHED_LOWEST) or not kit.features.priority:
        return
    queue, worker = await declared(kit, SHED_LOWEST, 5), await kit.worker()
    ids = await came(kit, queue, 1, 5, 3, 1, 9)
    new = await kit.accept(kit.message(queue, b"new", priority=5, sent=kit.now()))
    [letter] = await shed(kit, queue, [ids[3]], "the newest of the lowest priority")
    expect("5" in letter.reason, f"the reason names the priority that came: {letter.reason!r}")
    new += await kit.accept(kit.message(queue, b"new", priority=5, sent=kit.now()))
    await shed(kit, queue, [ids[0], ids[3]], "the older one of it")
    new += await kit.accept(kit.message(queue, b"new", priority=4, sent=kit.now()))
    await shed(kit, queue, [ids[0], ids[2], ids[3]], "the next priority")
    before = await info(kit, queue)
    await refused_whole(kit, queue, before, kit.message(queue, priority=4, sent=kit.now()))
    await refused_whole(kit, queue, before, kit.message(queue, priority=0, sent=kit.now()))
    taken = await worker.take(queue, count=5)
    equal(worker.ids_of(taken), [ids[4], ids[1], *new], "what is delivered")


async def check_of_one_priority_the_newest_makes_room(kit: Kit) -> None:
    if not await shedding(kit, SHED_LOWEST) or not (kit.features.priority and kit.features.partition):
        return
    queue = await declared(kit, SHED_LOWEST, 4)
    ids = []
    for number, partition in enumerate(("b", "a", "b", "a")):
        sent = kit.now() - 100 + number
        ids += await kit.accept(kit.message(queue, priority=2, partition=partition, sent=sent))
    for wanted in (ids[3:], ids[2:], ids[1:]):
        await kit.accept(kit.message(queue, priority=7, partition="a", sent=kit.now()))
        await shed(kit, queue, wanted, "the newest of all partitions")


async def check_a_batch_is_accepted_whole_or_not(kit: Kit) -> None:
    """A batch is worth what its lowest message is, and does not shed itself."""
    if not (await shedding(kit, SHED_LOWEST) and await shedding(kit, DROP_OLDEST) and kit.features.whole_batches):
        return
    if kit.features.max_batch < 5:
        return
    queue = await declared(kit, DROP_OLDEST, 4)
    ids = await kit.fill(queue, 3)
    await kit.fill(queue, 3)
    await shed(kit, queue, ids[:2], "as many as a batch brings, less the room that was there")
    before = await info(kit, queue)
    await refused_whole(kit, queue, before, *(kit.message(queue) for _ in range(5)))
    await kit.fill(queue, 4)
    equal((await info(kit, queue)).shed, 6, "all make room for a batch as large as the bound")
    if kit.features.priority:
        queue = await declared(kit, SHED_LOWEST, 3)
        ids = await came(kit, queue, 1, 5, 1)
        before = await info(kit, queue)
        await refused_whole(kit, queue, before, *(kit.message(queue, priority=4) for _ in range(3)))
        await refused_whole(kit, queue, before, kit.message(queue, priority=1), kit.message(queue, priority=9))
        await kit.accept(kit.message(queue, priority=4), kit.message(queue, priority=2))
        await shed(kit, queue, [ids[0], ids[2]], "two for a batch of two")


async def check_a_batch_for_several_queues_sheds_in_all_or_none(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST) or not kit.features.whole_batches or kit.features.max_batch < 2:
        return
    sheds, refuses = await declared(kit, DROP_OLDEST, 1), await kit.queue(max_length=1)
    [old] = await kit.fill(sheds, 1)
    [kept] = await kit.fill(refuses, 1)
    full(await kit.publish(kit.message(sheds), kit.message(refuses)), refuses, "a batch of which one does not fit")
    await shed(kit, sheds, [], "shed for a batch that was refused")
    worker = await kit.worker()
    taken = await worker.take(sheds, refuses, count=2)
    equal(sorted(worker.ids_of(taken)), sorted([old, kept]), "what is there after a refusal")


async def check_who_waits_is_told(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST) or kit.results is not kit.engine:
        return
    queue, told = await declared(kit, DROP_OLDEST, 2), Told()
    ids = await kit.fill(queue, 1) + await kit.accept(kit.message(queue, id=kit.name("id")))
    subscription = kit.backend.subscribe(ids, told)
    await kit.fill(queue, 2)
    reports = await kit.threaded(lambda: told.wait(2))
    subscription.close()
    equal(sorted(report.id for report in reports), sorted(ids), "who was told of")
    for report in [*reports, *await kit.fetch(*ids)]:
        equal((report.state, report.task, report.queue), (State.FAILURE, "conformance.task", queue), "what was told")
        outcome = report.outcome
        error = rebuild(outcome.value) if outcome is not None else None
        expect(isinstance(error, TaskShed) and repr(queue) in str(error), f"the error is {error!r}")


async def check_what_was_shed_can_be_published_again(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue, worker = await declared(kit, DROP_OLDEST, 1), await kit.worker()
    named = kit.message(queue, b"named", id=kit.name("id"), headers={"from": "me"})
    ids = await kit.accept(named) + await kit.fill(queue, 1)
    if kit.features.knows_ids:
        instance((await kit.publish(named))[0], Duplicate, "a repeat of a task that was shed")
    [last] = await kit.fill(queue, 1)
    await shed(kit, queue, ids, "one after the other")
    equal(await retry_dead(kit, *ids), 2, "dead letters retried")
    within(await kit.depth(queue), (3, None), "depth: a retried dead letter is always admitted")
    expect(not any(one.state.terminal for one in await kit.fetch(*ids)), "a retried task has not ended")
    taken = await worker.take(queue, count=3)
    equal(sorted(worker.ids_of(taken)), sorted([*ids, last]), "what is delivered")
    again = next(one.message for one in taken if worker.id_of(one) == named.id)
    equal(again and (again.body, again.headers), (b"named", {"from": "me"}), "the retried message")
    for delivery in taken:
        await worker.finish(delivery, ACK, success(kit))
    equal({one.state for one in await kit.fetch(*ids)}, {State.SUCCESS}, "states in the end")
    equal(await letters(kit, queue), [], "dead letters in the end")


async def check_unique_keys_are_free(kit: Kit) -> None:
    guard = Unique(kit.name("key"))
    if not await shedding(kit, DROP_OLDEST) or not keeps_guard(kit.features, guard):
        return
    queue = await declared(kit, DROP_OLDEST, 2)
    ids = await kit.accept(kit.message(queue, guards=(guard,)))
    ids += await kit.fill(queue, 2)
    await shed(kit, queue, ids[:1], "the holder of the key")
    await kit.accept(kit.message(queue, guards=(guard,)))
    # What is refused by its guard has shed nothing.
    await kit.publish(kit.message(queue, guards=(guard,)))
    await shed(kit, queue, ids[:2], "only what was accepted sheds")


async def check_who_gives_way_is_not_shed_as_well(kit: Kit) -> None:
    """A task that ends for another that takes its key makes room once, if at all."""
    guard = Unique(kit.name("key"), on_conflict="replace")
    if not await shedding(kit, DROP_OLDEST) or not keeps_guard(kit.features, guard) or not kit.features.whole_batches:
        return
    if kit.features.max_batch < 2:
        return
    queue, worker = await declared(kit, DROP_OLDEST, 2), await kit.worker()
    gone = await kit.accept(kit.message(queue, guards=(guard,))) + await kit.fill(queue, 1)
    gone += await kit.accept(kit.message(queue), kit.message(queue, guards=(guard,)))
    within(await kit.depth(queue), (2, None), "depth after two, of which one took the place of the oldest")
    new = gone[2:3] + await kit.accept(kit.message(queue, guards=(guard,)))
    within(await kit.depth(queue), (2, None), "depth after one took the place of another")
    dead = await dead_ids(kit, queue)
    equal((await info(kit, queue)).shed, len(dead), "tasks counted as shed")
    expect(dead <= set(gone), "what was there before is gone, and nothing else")
    equal(sorted(worker.ids_of(await worker.take(queue, count=2))), sorted(new), "what is delivered")


async def check_what_is_leased_delayed_or_came_back_is_spared(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST) or not kit.features.delay:
        return
    queue, worker = await declared(kit, DROP_OLDEST, 7), await kit.worker()
    spared = await kit.accept(kit.message(queue, eta=kit.now() + 1000))
    spared += await kit.fill(queue, 5)
    _, two, three, four, five = await worker.take(queue, count=5)
    await worker.settle(
        Settlement(two.receipt, RELEASE),
        Settlement(three.receipt, RetryAt(kit.now() + 1000, retried(three.message))),
        Settlement(four.receipt, RetryAt(kit.now(), retried(four.message))),
        Settlement(five.receipt, RetryAt(kit.now(), charge=True)),
    )
    ids = await came(kit, queue, 5, 5, 5)
    await shed(kit, queue, ids[:2], "what is ready and was never handed out")
    taken = {worker.id_of(delivery): delivery for delivery in await worker.take(queue, count=4)}
    await worker.finish(taken[ids[2]])
    await kit.accept(kit.message(queue, eta=kit.now() + 1000))
    before = await info(kit, queue)
    await refused_whole(kit, queue, before, kit.message(queue, priority=9 if kit.features.priority else 5))
    expect(not (await dead_ids(kit, queue) & set(spared)), "nothing that was begun was shed")


def retried(message: Message | None) -> Message:
    if message is None:
        raise Violation("a message could not be read")
    message.retries += 1
    return message


async def check_limited_tasks_and_paused_queues_make_room(kit: Kit) -> None:
    guard = Limit(kit.name("key"), concurrency=1)
    if await shedding(kit, DROP_OLDEST) and keeps_guard(kit.features, guard):
        queue, worker = await declared(kit, DROP_OLDEST, 3), await kit.worker()
        ids = await came(kit, queue, 5, 5, 5, guards=(guard,))
        held = await worker.take_one(queue)
        ids += await kit.accept(kit.message(queue, guards=(guard,), sent=kit.now()))
        await shed(kit, queue, ids[1:2], "the oldest that waits for its limit")
        await worker.finish(held)
        first = await worker.take_one(queue)
        await worker.finish(first)
        equal(worker.ids_of([first, await worker.take_one(queue)]), ids[2:], "what is delivered")
    if await shedding(kit, DROP_OLDEST) and kit.features.pause:
        queue, worker = await declared(kit, DROP_OLDEST, 2), await kit.worker()
        await kit.call(kit.inspect.pause(queue))
        ids = await kit.fill(queue, 2) + await kit.fill(queue, 1)
        await shed(kit, queue, ids[:1], "the oldest of a paused queue")
        await kit.call(kit.inspect.resume(queue))
        equal(worker.ids_of(await worker.take(queue, count=2)), ids[1:], "what is delivered when it goes on")


async def check_what_cannot_be_read_is_spared(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue = await declared(kit, DROP_OLDEST, 2)
    [answer] = await kit.publish(kit.message(queue))
    if not await kit.corrupt(instance(answer, Accepted, "answer").key):
        return
    ids = await kit.fill(queue, 1) + await kit.fill(queue, 1)
    await shed(kit, queue, ids[:1], "what can be read")


async def check_what_its_worker_lost_is_spared(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue, worker = await declared(kit, DROP_OLDEST, 2), await kit.worker()
    [lost] = await kit.fill(queue, 1)
    worker.start(await worker.take_one(queue, lease=kit.unit))
    await kit.expire(worker)
    ids = await kit.fill(queue, 1) + await kit.fill(queue, 1)
    await shed(kit, queue, ids[:1], "what was not begun")
    other = await kit.worker("other")
    equal(other.ids_of(await other.take(queue, count=2)), [lost, ids[1]], "what is delivered")


async def check_what_is_due_is_ready(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST) or not kit.features.delay:
        return
    queue, worker = await declared(kit, DROP_OLDEST, 2), await kit.worker()
    due = await kit.accept(*(kit.message(queue, eta=kit.now() + kit.unit * (1 + n / 10)) for n in range(2)))
    full(await kit.publish(kit.message(queue, sent=kit.now())), queue, "a publish beside what is not due")
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    [new] = await kit.accept(kit.message(queue, sent=kit.now()))
    await shed(kit, queue, due[:1], "what was due first")
    equal(sorted(worker.ids_of(await worker.take(queue, count=2))), sorted([due[1], new]), "what is delivered")


async def check_parts_of_a_canvas_are_spared(kit: Kit) -> None:
    for overflow in sorted(SHEDDING):
        if not await shedding(kit, overflow) or not kit.features.priority:
            continue
        graphs = [uuid.uuid4().hex for _ in range(3)]
        parts = [
            Message(1, "conformance.task", b"[]", queue="", options=Options(place=Place(graphs[0], 1))),
            Message(1, "conformance.task", b"[]", id=node_id(graphs[1], 2), queue=""),
            Message(1, "conformance.task", b"[]", id=beginning_id(graphs[2]), queue=""),
        ]
        queue, worker = await declared(kit, overflow, 5), await kit.worker()
        for part in parts:
            part.queue, part.priority = queue, 0
        spared = await kit.accept(*parts[:2])
        ids = await came(kit, queue, 0)
        [late] = await kit.call(worker.broker.follow_up(parts[2:], PUBLISH_TIMEOUT), worker.engine)
        spared.append(kit.public_id(instance(late, Accepted, "a follow-up").key))
        ids += await came(kit, queue, 0)
        new = await kit.accept(*(kit.message(queue, priority=9, sent=kit.now()) for _ in range(2)))
        await shed(kit, queue, ids, f"what is no part of a canvas, with {overflow}")
        if overflow == SHED_LOWEST:
            await refused_whole(kit, queue, await info(kit, queue), kit.message(queue, priority=9))
        taken = await worker.take(queue, count=5)
        equal(sorted(worker.ids_of(taken)), sorted(spared + new), "what is delivered")


async def check_bytes_make_room_too(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue, worker = await declared(kit, DROP_OLDEST, 100, 10_000), await kit.worker()
    ids = []
    for number in range(4):
        ids += await kit.accept(kit.message(queue, b"%d" % number * 2_000))
    ids += await kit.accept(kit.message(queue, b"x" * 5_000))
    [*_, letter] = await shed(kit, queue, ids[:2], "as many as the bytes need")
    expect("bytes" in letter.reason, f"the reason names the bound: {letter.reason!r}")
    before = await info(kit, queue)
    expect((before.bytes or 0) <= 10_000, f"bytes in the queue are {before.bytes}")
    await refused_whole(kit, queue, before, kit.message(queue, b"x" * 10_001))
    equal(worker.ids_of(await worker.take(queue, count=3)), ids[2:], "what is delivered")


async def check_a_lowered_bound_sheds_nothing(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue, worker = await declared(kit, DROP_OLDEST, 6), await kit.worker()
    ids = await kit.fill(queue, 6)
    await declared(kit, DROP_OLDEST, 2, queue=queue)
    await shed(kit, queue, [], "shed by a bound that was lowered")
    await kit.fill(queue, 1)
    await shed(kit, queue, ids[:1], "one for one, whatever is too much")
    within(await kit.depth(queue), (6, None), "depth above a lowered bound")
    for delivery in await worker.take(queue, count=5):
        await worker.finish(delivery)
    await kit.fill(queue, 1)
    equal((await info(kit, queue)).shed, 1, "shed where there was room again")


async def check_a_policy_can_be_changed(kit: Kit) -> None:
    if not await shedding(kit, DROP_OLDEST):
        return
    queue = await kit.queue(max_length=1)
    ids = await kit.fill(queue, 1)
    full(await kit.publish(kit.message(queue)), queue, "a publish into a full queue")
    await declared(kit, DROP_OLDEST, 1, queue=queue)
    ids += await kit.fill(queue, 1)
    await shed(kit, queue, ids[:1], "after the policy was declared")
    await declared(kit, "reject", 1, queue=queue)
    full(await kit.publish(kit.message(queue)), queue, "a publish into a full queue that refuses again")


async def check_producers_race_for_the_room(kit: Kit) -> None:
    """However many publish at once: never more than the bound, and each task is there, or a dead letter."""
    bound = 5
    for overflow in sorted(SHEDDING):
        if not await shedding(kit, overflow) or not kit.features.priority:
            continue
        queue = await declared(kit, overflow, bound)
        engines = [kit.second() for _ in range(PRODUCERS)]
        accepted: list[str] = []
        for step in range(EACH):
            message = [kit.message(queue, priority=(step + n) % 10, sent=kit.now()) for n in range(PRODUCERS)]
            racing = [
                kit.start(engine.broker.publish([one], PUBLISH_TIMEOUT), engine)
                for engine, one in zip(engines, message, strict=True)
            ]
            answers: list[Answer] = []
            for one in racing:
                answers += await one.end()
            for answer in answers:
                if isinstance(answer, Accepted):
                    accepted.append(kit.public_id(answer.key))
                else:
                    full([answer], queue, "the answer to a publish that was not accepted")
            counts = await info(kit, queue)
            expect((counts.depth or 0) <= bound, f"depth is {counts.depth}, beyond the bound of {bound}")
        worker = await kit.worker()
        there = worker.ids_of(await worker.take(queue, count=bound))
        dead = await dead_ids(kit, queue)
        equal(sorted([*there, *dead]), sorted(accepted), f"what was accepted, with {overflow}")
        equal((await info(kit, queue)).shed, len(dead), "tasks counted as shed")


async def check_policies_have_names(kit: Kit) -> None:
    within(kit.features.overflow <= frozenset(OVERFLOWS), (True,), "names of policies")
    expect("reject" in kit.features.overflow, "every engine can refuse")


CHECKS = (
    check_policies_have_names,
    check_the_oldest_makes_room,
    check_the_oldest_of_all_priorities_and_partitions_makes_room,
    check_the_lowest_priority_makes_room,
    check_of_one_priority_the_newest_makes_room,
    check_a_batch_is_accepted_whole_or_not,
    check_a_batch_for_several_queues_sheds_in_all_or_none,
    check_who_waits_is_told,
    check_what_was_shed_can_be_published_again,
    check_unique_keys_are_free,
    check_who_gives_way_is_not_shed_as_well,
    check_what_is_leased_delayed_or_came_back_is_spared,
    check_limited_tasks_and_paused_queues_make_room,
    check_what_cannot_be_read_is_spared,
    check_what_its_worker_lost_is_spared,
    check_what_is_due_is_ready,
    check_parts_of_a_canvas_are_spared,
    check_bytes_make_room_too,
    check_a_lowered_bound_sheds_nothing,
    check_a_policy_can_be_changed,
    check_producers_race_for_the_room,
)
