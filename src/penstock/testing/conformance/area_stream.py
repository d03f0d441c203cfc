"""Parts: what a task publishes while it runs is kept in order, within bounds, and told by push."""

from __future__ import annotations

import functools
import random

from penstock.broker import Accepted, Duplicate
from penstock.delivery import ACK, RELEASE, Dead, RetryAt
from penstock.errors import MessageTooLarge
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Outcome, State
from penstock.testing.conformance.expect import Violation, equal, expect, instance
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.streaming import (
    MARKS,
    Bell,
    Stream,
    has_come,
    look,
    nothing,
    running,
    streams,
    until,
)
from penstock.testing.conformance.worker import success

RESULTS_ARE_KEPT = 24 * 3600.0
"""Seconds for which an engine keeps results that is opened without settings."""


async def check_parts_are_kept_in_order(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0", b"1")
    await stream.add(b"2")
    await stream.add()
    found = await stream.parts()
    equal((found.first, found.end, found.ended), (0, 3, False), "first, end and ended of three parts")
    equal(await stream.values(), [(0, 0, b"0"), (1, 0, b"1"), (2, 0, b"2")], "parts (index, run, value)")


async def check_a_reader_goes_on_from_its_offset(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    for first in (0, 4, 8):
        await stream.add(*(b"%d" % number for number in range(first, first + 4)))
    for offset, limit, wanted in (
        (0, 3, range(3)),
        (3, 3, range(3, 6)),
        (7, 100, range(7, 12)),
        (12, 100, range(0)),
        (99, 100, range(0)),
        (-1, 1, range(11, 12)),
        (-3, 2, range(9, 11)),
        (-99, 2, range(2)),
    ):
        found = await stream.parts(offset, limit)
        equal([part.index for part in found.parts], [*wanted], f"indexes from {offset}, {limit} at most")
        equal([part.value for part in found.parts], [b"%d" % number for number in wanted], f"values from {offset}")
        equal((found.first, found.end), (0, 12), f"first and end, asked from {offset}")


async def check_any_bytes_are_kept(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    large = bytes(random.randbytes(300_000))
    for value, content_type in ((bytes(range(256)), "msgpack"), (b"", "json"), (large, "json+zstd+signed")):
        equal(await stream.append(value, content_type=content_type), True, "answer to an append")
    found = [(part.value, part.content_type) for part in (await stream.parts()).parts]
    equal(
        [kind for _, kind in found], ["msgpack", "json", "json+zstd+signed"], "content types of parts of three appends"
    )
    expect([value for value, _ in found] == [bytes(range(256)), b"", large], "values of parts come as they went")


async def check_one_append_may_mix_content_types(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    mixed = [(b"1", "json"), (b"\x01", "msgpack"), (b"", "yaml"), (b"2", "json")]
    equal(await kit.backend_call(kit.backend.append(stream.id, 0, 5, mixed)), True, "answer to an append")
    found = [(part.value, part.content_type) for part in (await stream.parts()).parts]
    equal(found, mixed, "parts of one append")


async def check_parts_stay_with_the_result(kit: Kit) -> None:
    if not await streams(kit):
        return
    worker = await kit.worker()
    failure = Outcome(State.FAILURE, b'{"type":"ValueError"}', kit.now())
    for verdict, outcome in ((ACK, success(kit)), (ACK, failure), (Dead("poison"), failure)):
        stream = await running(kit, worker)
        await stream.add(b"0", b"1")
        await worker.finish(stream.delivery, verdict, outcome)
        found = await stream.parts(1)
        equal((found.first, found.end, found.ended), (0, 2, True), f"what is kept of a task after {outcome.state}")
        equal([part.value for part in found.parts], [b"1"], "a part of a task that has ended")
        equal(await stream.append(b"late"), False, "answer to an append after the end")
        equal(await stream.append(b"late", run=7), False, "answer to an append of a later run after the end")
        equal(len((await stream.parts()).parts), 2, "parts after a late append")


async def check_an_outcome_that_is_stored_ends_them(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0")
    await kit.backend_call(kit.backend.store([(stream.id, success(kit))]))
    equal(await stream.append(b"1"), False, "answer to an append after an outcome was stored")
    found = await stream.parts()
    equal((found.end, found.ended), (1, True), "end and ended after an outcome was stored")


async def check_acknowledged_before_it_runs(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.worker.finish(stream.delivery)
    await stream.add(b"0")
    await stream.add(b"1")
    equal(await stream.values(), [(0, 0, b"0"), (1, 0, b"1")], "parts of a task that was acknowledged before it ran")
    expect(not await stream.ended(), "it has not ended while no outcome is stored")
    await kit.backend_call(kit.backend.store([(stream.id, success(kit))]))
    found = await stream.parts()
    equal((found.end, found.ended), (2, True), "end and ended when its outcome is stored")
    equal(await stream.append(b"2"), False, "answer to an append after that")


async def check_acknowledged_early_and_tried_again(kit: Kit) -> None:
    if kit.notes_starts or not await streams(kit):
        return
    queue, worker, chosen = await kit.queue(), await kit.worker(), kit.name("chosen")
    await kit.accept(kit.message(queue, id=chosen))
    stream = Stream(kit, worker, await worker.take_one(queue))
    await worker.finish(stream.delivery)
    await stream.add(b"0", b"1")
    [answer] = await kit.call(kit.broker.follow_up([kit.message(queue, id=chosen, retries=1)], PUBLISH_TIMEOUT))
    instance(answer, Accepted, "answer to a further try of what was acknowledged without an outcome")
    again = Stream(kit, worker, await worker.take_one(queue))
    await worker.finish(again.delivery)
    await again.add(b"2", run=1)
    found = await look(kit, chosen)
    wanted = [(0, 0, b"0"), (1, 0, b"1"), (2, 1, b"2")]
    equal(
        [(part.index, part.run, part.value) for part in found.parts], wanted, "parts (index, run, value) of both runs"
    )
    expect(not found.ended, "a task that is tried again has not ended")
    await kit.backend_call(kit.backend.store([(chosen, success(kit))]))
    expect((await look(kit, chosen)).ended, "it has ended when its outcome is stored")


async def check_a_later_run_goes_on_after_them(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0", b"1")
    message = kit.message("", id=stream.delivery.message and stream.delivery.message.id, retries=1)
    queue = stream.delivery.message.queue if stream.delivery.message else ""
    message.queue = queue
    await stream.worker.finish(stream.delivery, RetryAt(kit.now(), message))
    expect(not await stream.ended(), "a task that is tried again has not ended")
    again = Stream(kit, stream.worker, await stream.worker.take_one(queue))
    equal(again.id, stream.id, "id of a task that is tried again")
    await again.add(b"2", run=1)
    wanted = [(0, 0, b"0"), (1, 0, b"1"), (2, 1, b"2")]
    equal(await stream.values(), wanted, "parts (index, run, value) of two runs")
    await stream.worker.finish(again.delivery, outcome=success(kit))
    equal(await stream.values(), wanted, "the same after the end")


async def check_an_earlier_run_adds_nothing(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0", run=1)
    await stream.add(b"1", run=3)
    for run in (0, 2):
        equal(await stream.append(b"stale", run=run), False, f"answer to an append of run {run} after one of run 3")
    await stream.add(b"2", run=3)
    equal(await stream.values(), [(0, 1, b"0"), (1, 3, b"1"), (2, 3, b"2")], "parts of two runs")


async def check_what_is_repeated_adds_nothing(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    for mark in (MARKS - 1, 0):
        for _ in range(3):
            equal(await stream.append(b"%d" % mark, mark=mark), True, "answer to an append, and to its repeats")
    equal([value for _, _, value in await stream.values()], [b"%d" % (MARKS - 1), b"0"], "what two appends added")


async def check_the_number_is_bounded(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream, batch = await running(kit), MOST_PARTS // 4
    for start in range(0, MOST_PARTS + 2 * batch, batch):
        await stream.add(*(b"%d" % number for number in range(start, start + batch)))
    await stream.add(b"last")
    end = MOST_PARTS + 2 * batch + 1
    found = await stream.parts(0, 2)
    equal(found.end, end, "the next index after more parts than are kept")
    kept = found.end - found.first
    expect(
        MOST_PARTS // 2 <= kept <= MOST_PARTS, f"{kept} parts are kept, {MOST_PARTS} at most and half of that at least"
    )
    equal([part.index for part in found.parts], [found.first, found.first + 1], "indexes from 0, which is gone")
    equal(found.parts[0].value, b"%d" % found.first, "value of the oldest part that is kept")
    equal(await stream.values(-1), [(end - 1, 0, b"last")], "the newest part")
    equal(len((await stream.parts(0)).parts), kept, "parts that are read at once")


async def check_the_bytes_are_bounded(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream, size = await running(kit), MOST_PART_BYTES // 8
    for number in range(12):
        await stream.add(bytes([number]) * size)
    found = await stream.parts()
    equal(found.end, 12, "the next index after more bytes than are kept")
    kept = sum(len(part.value) for part in found.parts)
    expect(MOST_PART_BYTES // 2 <= kept <= MOST_PART_BYTES, f"{kept} bytes are kept, {MOST_PART_BYTES} at most")
    equal(found.parts[-1].value[:1], bytes([11]), "the newest part")
    await stream.add(b"x" * MOST_PART_BYTES)
    found = await stream.parts()
    equal((found.first, found.end), (12, 13), "first and end after a part of the largest size")


async def check_too_much_at_once_is_refused(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0")
    for values in ([b"x" * (MOST_PART_BYTES + 1)], [b"x" * (MOST_PART_BYTES // 2)] * 3, [b"1"] * (MOST_PARTS + 1)):
        try:
            await stream.append(*values)
        except MessageTooLarge:
            continue
        raise Violation(f"an append of {len(values):,} parts with {sum(map(len, values)):,} bytes was not refused")
    equal(await stream.values(), [(0, 0, b"0")], "parts after what was refused")


async def check_forgotten_with_the_result(kit: Kit) -> None:
    if not await streams(kit):
        return
    worker = await kit.worker()
    stream, other = await running(kit, worker), await running(kit, worker)
    for one in (stream, other):
        await one.add(b"0")
        await worker.finish(one.delivery, outcome=success(kit))
    await kit.backend_call(kit.backend.forget([stream.id]))
    nothing(await stream.parts(), "parts of a task whose result was forgotten")
    equal(await other.values(), [(0, 0, b"0")], "parts of another task")


async def check_expired_with_the_result(kit: Kit) -> None:
    if not await streams(kit) or kit.clock is None:
        return  # a server of real time would keep the check waiting for a day
    stream, stranger = await running(kit), kit.name("stranger")
    await stream.add(b"0")
    await kit.backend_call(kit.backend.append(stranger, 0, 1, [(b"0", "json")]))
    await stream.worker.finish(stream.delivery, outcome=success(kit))
    stream.worker.broker.record_start(stream.worker.slot, None)
    await kit.pass_time(RESULTS_ARE_KEPT * 1.5)
    for engine in {id(one): one for one in (kit.engine, kit.results)}.values():
        await kit.call(engine.coordinator.reap(), engine)
    nothing(await stream.parts(), "parts of a task whose result has expired")
    nothing(await look(kit, stranger), "parts of a stranger to which nothing was added for as long")


async def check_a_dead_task_begins_anew(kit: Kit) -> None:
    if not await streams(kit) or not kit.fused:
        return
    stream = await running(kit)
    await stream.add(b"0", b"1", run=2)
    await stream.worker.finish(stream.delivery, Dead("poison"), Outcome(State.FAILURE, b'"poison"', kit.now()))
    await kit.call(kit.inspect.retry_dead([stream.id]))
    found = await stream.parts()
    equal((found.end, found.ended), (0, False), "parts of a dead task that runs again")
    queue = stream.delivery.message.queue if stream.delivery.message else ""
    again = Stream(kit, stream.worker, await stream.worker.take_one(queue))
    await again.add(b"new")
    equal(await stream.values(), [(0, 0, b"new")], "parts of its new life")


async def check_nothing_is_known_of_a_stranger(kit: Kit) -> None:
    if not await streams(kit):
        return
    nothing(await look(kit, kit.name("stranger")), "parts of a stranger")
    queue = await kit.queue()
    [task_id] = await kit.fill(queue, 1)
    found = await look(kit, task_id)
    equal((found.first, found.end, list(found.parts)), (0, 0, []), "parts of a task that waits")
    if kit.fused:
        expect(not found.ended, "a task that waits has not ended")


async def check_parts_of_a_stranger_are_kept(kit: Kit) -> None:
    """The task may be known to another server, the one that has its queue."""
    if not await streams(kit):
        return
    stranger = kit.name("stranger")
    equal(await kit.backend_call(kit.backend.append(stranger, 0, 1, [(b"0", "json")])), True, "answer to a stranger")
    equal(await kit.backend_call(kit.backend.append(stranger, 1, 2, [(b"1", "json")])), True, "answer to a later run")
    equal(await kit.backend_call(kit.backend.append(stranger, 0, 3, [(b"2", "json")])), False, "and to an earlier one")
    found = await look(kit, stranger)
    equal([part.value for part in found.parts], [b"0", b"1"], "parts of a stranger")
    expect(not found.ended, "a task with parts and no result has not ended")
    await kit.backend_call(kit.backend.store([(stranger, success(kit))]))
    found = await look(kit, stranger)
    equal(([part.value for part in found.parts], found.ended), ([b"0", b"1"], True), "parts of a stranger that ended")


async def check_parts_that_came_before_their_task_do_not_keep_it_out(kit: Kit) -> None:
    if not await streams(kit):
        return
    queue, worker, chosen = await kit.queue(), await kit.worker(), kit.name("chosen")
    await kit.backend_call(kit.backend.append(chosen, 0, 1, [(b"0", "json")]))
    await kit.accept(kit.message(queue, id=chosen))
    if kit.features.knows_ids:
        [answer] = await kit.publish(kit.message(queue, id=chosen))
        instance(answer, Duplicate, "answer to a repeat of it")
    stream = Stream(kit, worker, await worker.take_one(queue))
    equal(stream.id, chosen, "the id of the task")
    await stream.add(b"1", run=1)
    equal([part.value for part in (await look(kit, chosen)).parts], [b"0", b"1"], "parts by the chosen id")
    await kit.backend_call(kit.backend.store([(chosen, success(kit))]))
    expect((await look(kit, chosen)).ended, "it has ended when its outcome is stored")


async def check_parts_of_neighbours_are_apart(kit: Kit) -> None:
    if not await streams(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    neighbours = [Stream(kit, worker, delivery) for delivery in await worker.take(queue, count=3)]
    for turn in range(3):
        for number, stream in enumerate(neighbours):
            await stream.add(b"%d of %d" % (turn, number))
    await worker.finish(neighbours[1].delivery, outcome=success(kit))
    for number, stream in enumerate(neighbours):
        wanted = [(turn, 0, b"%d of %d" % (turn, number)) for turn in range(3)]
        equal(await stream.values(), wanted, f"parts of task {number} of three")
        equal(await stream.ended(), number == 1, f"whether task {number} has ended")


async def check_released_and_run_again(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream = await running(kit)
    await stream.add(b"0")
    await stream.worker.finish(stream.delivery, RELEASE)
    queue = stream.delivery.message.queue if stream.delivery.message else ""
    again = Stream(kit, stream.worker, await stream.worker.take_one(queue))
    await again.add(b"0")
    equal(await stream.values(), [(0, 0, b"0"), (1, 0, b"0")], "parts of a task that was handed back uncounted")


async def check_told_of_parts_and_of_the_end(kit: Kit) -> None:
    if not await streams(kit):
        return
    stream, bell = await running(kit), Bell()
    subscription = kit.backend.subscribe_parts(stream.id, bell)
    for end in (1, 2, 3):
        await stream.add(b"%d" % end)
        await until(kit, bell, stream, functools.partial(has_come, end))
    await stream.worker.finish(stream.delivery, outcome=success(kit))
    await until(kit, bell, stream, lambda found: found.ended)
    subscription.close()
    subscription.close()


async def check_told_by_the_id_that_its_caller_chose(kit: Kit) -> None:
    if not await streams(kit):
        return
    queue, worker, bell, chosen = await kit.queue(), await kit.worker(), Bell(), kit.name("chosen")
    subscription = kit.backend.subscribe_parts(chosen, bell)
    await kit.accept(kit.message(queue, id=chosen))
    stream = Stream(kit, worker, await worker.take_one(queue))
    for end in (1, 2, 3):
        await stream.add(b"%d" % end)
        await until(kit, bell, stream, functools.partial(has_come, end))
    equal([part.value for part in (await look(kit, chosen)).parts], [b"1", b"2", b"3"], "parts by the chosen id")
    await worker.finish(stream.delivery, outcome=success(kit))
    await until(kit, bell, stream, lambda found: found.ended)
    subscription.close()


async def check_told_by_another_process(kit: Kit) -> None:
    if not await streams(kit) or kit.results is not kit.engine:
        return
    stream, bell, listener = await running(kit), Bell(), kit.second()
    subscription = listener.backend.subscribe_parts(stream.id, bell)
    await stream.add(b"0")
    await until(kit, bell, stream, functools.partial(has_come, 1))
    subscription.close()


async def check_told_only_of_what_is_waited_for(kit: Kit) -> None:
    if not await streams(kit):
        return
    worker, closed, bell = await kit.worker(), Bell(), Bell()
    stream = await running(kit, worker)
    gone = kit.backend.subscribe_parts(stream.id, closed)
    gone.close()
    closed.forget()
    subscription = kit.backend.subscribe_parts(stream.id, bell)
    await stream.add(b"0")
    await until(kit, bell, stream, functools.partial(has_come, 1))
    subscription.close()
    expect(not closed.rung(), "who has left is not told")


CHECKS = (
    check_parts_are_kept_in_order,
    check_a_reader_goes_on_from_its_offset,
    check_any_bytes_are_kept,
    check_one_append_may_mix_content_types,
    check_parts_stay_with_the_result,
    check_an_outcome_that_is_stored_ends_them,
    check_acknowledged_before_it_runs,
    check_acknowledged_early_and_tried_again,
    check_a_later_run_goes_on_after_them,
    check_an_earlier_run_adds_nothing,
    check_what_is_repeated_adds_nothing,
    check_the_number_is_bounded,
    check_the_bytes_are_bounded,
    check_too_much_at_once_is_refused,
    check_forgotten_with_the_result,
    check_expired_with_the_result,
    check_a_dead_task_begins_anew,
    check_nothing_is_known_of_a_stranger,
    check_parts_of_a_stranger_are_kept,
    check_parts_that_came_before_their_task_do_not_keep_it_out,
    check_parts_of_neighbours_are_apart,
    check_released_and_run_again,
    check_told_of_parts_and_of_the_end,
    check_told_by_the_id_that_its_caller_chose,
    check_told_by_another_process,
    check_told_only_of_what_is_waited_for,
)
