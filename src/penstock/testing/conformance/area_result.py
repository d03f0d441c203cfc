"""Results: written once, told by push, and honest about what is not known."""

from __future__ import annotations

import functools
import time

from penstock.delivery import ACK, Dead, RetryAt
from penstock.outcome import Outcome, Progress, State
from penstock.testing.conformance.expect import HANG, Violation, equal, expect, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.told import Told
from penstock.testing.conformance.worker import success


async def check_never_seen_is_unknown(kit: Kit) -> None:
    stranger = kit.name("stranger")
    [report] = await kit.fetch(stranger)
    equal((report.id, report.state, report.outcome), (stranger, State.UNKNOWN, None), "report of a stranger")
    equal(list(await kit.fetch()), [], "an empty fetch")


async def check_states_on_the_way(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    # An engine whose results live elsewhere cannot know of a task that has no result yet; it must not claim to.
    elsewhere = () if kit.fused else (State.UNKNOWN,)
    within((await kit.fetch(task_id))[0].state, (State.PENDING, *elsewhere), "state of a waiting task")
    delivery = await worker.take_one(queue)
    worker.start(delivery)
    within((await kit.fetch(task_id))[0].state, (State.PENDING, State.STARTED, *elsewhere), "state of a running task")
    if kit.fused:
        await _shown_as_started(kit, task_id)
    message = kit.message(queue, id=delivery.message and delivery.message.id, retries=1)
    await worker.finish(delivery, RetryAt(kit.now(), message))
    within((await kit.fetch(task_id))[0].state, (State.RETRY, *elsewhere), "state of a task to retry")
    await worker.finish(await worker.take_one(queue), outcome=success(kit, b"3"))
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.SUCCESS, b"3"), "report of a finished task")


async def _shown_as_started(kit: Kit, task_id: str) -> None:
    """A start may be told to a server some moments later."""
    deadline = time.monotonic() + HANG
    while (state := (await kit.fetch(task_id))[0].state) is not State.STARTED:
        equal(state, State.PENDING, "state of a running task")
        expect(time.monotonic() < deadline, f"a running task is not STARTED within {HANG} s")
        await kit.threaded(functools.partial(time.sleep, 0.005))


async def check_fetch_answers_in_order(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 3)
    for number, delivery in enumerate(await worker.take(queue, count=3)):
        await worker.finish(delivery, outcome=success(kit, b"%d" % number))
    asked = [ids[2], kit.name("stranger"), ids[0], ids[1], ids[2]]
    reports = await kit.fetch(*asked)
    equal([report.id for report in reports], asked, "ids of the reports")
    values = [report.outcome and report.outcome.value for report in reports]
    equal(values, [b"2", None, b"0", b"1", b"2"], "values of the reports")


async def check_failures_and_other_encodings_are_kept(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 3)
    outcomes = [
        Outcome(State.FAILURE, b'{"type":"ValueError"}', kit.now(), retries=3),
        Outcome(State.SUCCESS, bytes(range(256)), kit.now(), content_type="msgpack"),
        Outcome(State.SUCCESS, b'"' + b"x" * 300_000 + b'"', kit.now()),
    ]
    for delivery, outcome in zip(await worker.take(queue, count=3), outcomes, strict=True):
        await worker.finish(delivery, outcome=outcome)
    for report, wanted in zip(await kit.fetch(*ids), outcomes, strict=True):
        found = report.outcome
        if found is None:
            raise Violation(f"an outcome of {len(wanted.value)} bytes is missing")
        equal(
            (report.state, found.state, found.value, found.content_type, found.retries),
            (wanted.state, wanted.state, wanted.value, wanted.content_type, wanted.retries),
            "a stored outcome",
        )


async def check_dead_with_its_outcome(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    failure = Outcome(State.FAILURE, b'"poison"', kit.now())
    await worker.finish(await worker.take_one(queue), Dead("poison"), failure)
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.FAILURE, b'"poison"'), "a dead task's report")


async def check_stored_once(kit: Kit) -> None:
    queue = await kit.queue()
    [task_id] = await kit.fill(queue, 1)
    first, second = success(kit, b'"first"'), Outcome(State.FAILURE, b'"second"', kit.now())
    equal(list(await kit.backend_call(kit.backend.store([(task_id, first)]))), [True], "first outcome")
    equal(list(await kit.backend_call(kit.backend.store([(task_id, second)]))), [False], "second outcome")
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.SUCCESS, b'"first"'), "the one that is kept")


async def check_two_outcomes_of_one_task_together(kit: Kit) -> None:
    queue = await kit.queue()
    one, other = await kit.fill(queue, 2)
    outcomes = [
        (id, Outcome(State.SUCCESS, value, kit.now())) for id, value in ((one, b"1"), (one, b"2"), (other, b"3"))
    ]
    equal(list(await kit.backend_call(kit.backend.store(outcomes))), [True, False, True], "who was first")
    reports = await kit.fetch(one, other)
    equal([report.outcome and report.outcome.value for report in reports], [b"1", b"3"], "the ones that are kept")


async def check_a_settlement_does_not_replace_an_outcome(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    await kit.backend_call(kit.backend.store([(task_id, Outcome(State.REVOKED, b'"first"', kit.now()))]))
    await worker.finish(delivery, ACK, success(kit, b'"second"'))
    [report] = await kit.fetch(task_id)
    equal((report.state, report.outcome and report.outcome.value), (State.REVOKED, b'"first"'), "the one that is kept")


async def check_told_when_it_ends(kit: Kit) -> None:
    queue, worker, told = await kit.queue(), await kit.worker(), Told()
    one, two, _ = await kit.fill(queue, 3)
    subscription = kit.backend.subscribe([one, two], told)
    deliveries = await worker.take(queue, count=3)
    equal(told.so_far(), [], "what is told before anything ended")
    for number in (2, 1, 0):
        await worker.finish(deliveries[number], outcome=success(kit, b"%d" % number))
    reports = await kit.threaded(lambda: told.wait(2))
    subscription.close()
    equal(sorted(report.id for report in reports), sorted([one, two]), "ids told")
    values = {report.id: report.outcome and report.outcome.value for report in reports}
    equal(values, {one: b"0", two: b"1"}, "values told")


async def check_told_of_what_has_ended_already(kit: Kit) -> None:
    queue, worker, told = await kit.queue(), await kit.worker(), Told()
    ids = await kit.fill(queue, 2)
    for delivery in await worker.take(queue, count=2):
        await worker.finish(delivery, outcome=success(kit))
    subscription = kit.backend.subscribe(ids, told)
    reports = await kit.threaded(lambda: told.wait(2))
    subscription.close()
    equal(sorted(report.id for report in reports), sorted(ids), "ids told")
    expect(all(report.state is State.SUCCESS for report in reports), "states told are terminal")


async def check_told_once_and_not_after_close(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    first, second, closed = Told(), Told(), Told()
    [task_id] = await kit.fill(queue, 1)
    one = kit.backend.subscribe([task_id], first)
    two = kit.backend.subscribe([task_id], closed)
    two.close()
    two.close()
    await worker.finish(await worker.take_one(queue), outcome=success(kit))
    await kit.threaded(first.wait)
    # What is told after this second subscriber was, would have been told by now.
    three = kit.backend.subscribe([task_id], second)
    await kit.threaded(second.wait)
    one.close()
    three.close()
    equal((len(first.so_far()), len(second.so_far())), (1, 1), "how often each is told")
    equal(closed.so_far(), [], "what a closed subscription is told")


async def check_told_by_another_process(kit: Kit) -> None:
    queue, worker, told = await kit.queue(), await kit.worker(), Told()
    [task_id] = await kit.fill(queue, 1)
    listener = kit.second().backend if kit.results is kit.engine else kit.backend
    subscription = listener.subscribe([task_id], told)
    await worker.finish(await worker.take_one(queue), outcome=success(kit, b"5"))
    [report] = await kit.threaded(told.wait)
    subscription.close()
    equal((report.id, report.outcome and report.outcome.value), (task_id, b"5"), "what another handle is told")


async def check_forgotten_is_unknown(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.fill(queue, 2)
    for delivery in await worker.take(queue, count=2):
        await worker.finish(delivery, outcome=success(kit))
    await kit.backend_call(kit.backend.forget([ids[0], kit.name("stranger")]))
    states = [report.state for report in await kit.fetch(*ids)]
    equal(states, [State.UNKNOWN, State.SUCCESS], "states after one result is forgotten")


async def check_progress_lasts_while_it_runs(kit: Kit) -> None:
    queue, worker = await kit.queue(), await kit.worker()
    [task_id] = await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    worker.start(delivery)
    if kit.results is not kit.engine:
        return  # a backend elsewhere may not know that it runs
    for done in (1.0, 2.0):
        await kit.call(worker.engine.backend.note(delivery.key, Progress(done, 10.0, "half way")), worker.engine)
        [report] = await kit.fetch(task_id)
        equal(report.progress, Progress(done, 10.0, "half way"), "progress of a running task")
    await worker.finish(delivery, outcome=success(kit))
    [report] = await kit.fetch(task_id)
    equal(report.progress, None, "progress of a finished task")


CHECKS = (
    check_never_seen_is_unknown,
    check_states_on_the_way,
    check_fetch_answers_in_order,
    check_failures_and_other_encodings_are_kept,
    check_dead_with_its_outcome,
    check_stored_once,
    check_two_outcomes_of_one_task_together,
    check_a_settlement_does_not_replace_an_outcome,
    check_told_when_it_ends,
    check_told_of_what_has_ended_already,
    check_told_once_and_not_after_close,
    check_told_by_another_process,
    check_forgotten_is_unknown,
    check_progress_lasts_while_it_runs,
)
