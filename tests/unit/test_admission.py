"""Calls that say what is to become of them: against the memory engine, with a clock in hand and no real pauses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock import (
    Backoff,
    BlockingCallInLoop,
    ConfigError,
    OutcomeUnknown,
    Penstock,
    QueueFull,
    State,
    apart,
)
from penstock.broker import Answer, Full, Unknown
from penstock.message import Message
from tests.unit.admission_stage import BUDGET, NOW, Stage
from tests.unit.fake_engine import fake_app


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch)
    yield made
    made.app.close()


# -- trying again


def test_a_full_queue_is_tried_again_until_there_is_room(stage: Stage) -> None:
    task = stage.task(on_full=Backoff())
    stage.fill(task)
    stage.between = lambda: stage.drain() if len(stage.pauses) == 3 else None
    result = task.delay(7)
    assert len(stage.pauses) == 3
    assert all(pause >= 0.9 for pause in stage.pauses), "never sooner than it was told"
    assert result.state is State.PENDING
    assert stage.depth() == 4


def test_after_its_deadline_the_last_refusal_is_raised(stage: Stage) -> None:
    task = stage.task()
    stage.fill(task)
    with pytest.raises(QueueFull) as raised:
        task.apply_async((7,), on_full=Backoff(base=1.0, cap=1.0, deadline=10.0))
    assert 4 <= len(stage.pauses) <= 10
    assert sum(stage.pauses) <= 10.0
    assert raised.value.why == ""
    assert stage.depth() == 4


@pytest.mark.parametrize("where", ["setting", "task", "call", "many", "batch"])
def test_whoever_may_say_it(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    backoff = Backoff()
    stage = Stage(monkeypatch, task_on_full=backoff if where in ("setting", "batch") else "raise")
    task = stage.task(**({"on_full": backoff} if where == "task" else {}))
    stage.fill(task)
    stage.between = lambda: stage.drain(2)
    if where == "many":
        results = task.delay_many([(7,), (8,)], on_full=backoff)
    elif where == "batch":
        with stage.app.batch():
            results = [task.delay(7), task.delay(8)]
    else:
        results = [task.apply_async((7,), **({"on_full": backoff} if where == "call" else {})), task.delay(8)]
    assert [result.state for result in results] == [State.PENDING] * 2
    assert stage.pauses
    assert stage.depth() == 4
    stage.app.close()


def test_a_call_is_stronger_than_its_task_and_that_than_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, task_on_full=Backoff())
    quiet, loud = stage.task(), stage.task(on_full="raise")
    stage.fill(quiet)
    for call in (
        lambda: loud.delay(7),
        lambda: quiet.apply_async((7,), on_full="raise"),
        lambda: quiet.delay_many([(7,)], on_full="raise"),
        lambda: stage.app.send_task(quiet.name, (7,), on_full="raise"),
        lambda: quiet.s(7).apply_async(on_full="raise"),
    ):
        with pytest.raises(QueueFull):
            call()
    assert stage.pauses == []
    with pytest.raises(QueueFull), stage.app.batch(on_full="raise"):
        quiet.delay(7)
    assert stage.pauses == []
    stage.app.close()


def test_a_task_that_is_not_known_here_is_tried_again_too(stage: Stage) -> None:
    stage.fill(stage.task())
    stage.between = stage.drain
    assert stage.app.send_task("elsewhere", (1,), on_full=Backoff()).state is State.PENDING


def test_what_can_never_fit_is_not_waited_for(stage: Stage) -> None:
    task = stage.task()
    with pytest.raises(QueueFull):
        task.delay_many([(number,) for number in range(5)], on_full=Backoff())
    assert stage.pauses == []


def test_in_a_loop_it_pauses_without_blocking_and_the_blocking_call_says_so() -> None:
    app, engine = fake_app()
    task = app.task(name="t")(lambda: None)
    tries, ticks = iter([True, True, False]), []
    engine.broker.answer = lambda message: Full("default", 4, 4, "tasks", 0.02) if next(tries) else _accepted(message)

    async def main() -> None:
        async def tick() -> None:
            while True:
                ticks.append(len(engine.broker.batches))
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        await task.aapply_async((), on_full=Backoff(base=0.001))
        ticking.cancel()
        engine.broker.answer = lambda _: Full("default", 4, 4, "tasks", 0.02)
        with pytest.raises(BlockingCallInLoop, match="waits for room in a queue"):
            task.apply_async((), on_full=Backoff())

    asyncio.run(main())
    assert {1, 2} <= set(ticks), "others ran between the tries"


def test_all_tries_have_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart.time, "sleep", lambda _: None)
    app, engine = fake_app()
    task, ids = app.task(name="t")(lambda: None), []

    def answer(message: Message) -> Answer:
        ids.append(message.id)
        return Full("default", 4, 4, "tasks", 0.01) if len(ids) < 4 else _accepted(message)

    engine.broker.answer = answer
    task.apply_async((), on_full=Backoff())
    first, *later = ids
    assert first is None, "a call that is let in at once has the engine's own id, which costs less"
    assert len(set(later)) == 1
    assert later[0] is not None


def test_an_id_whose_outcome_was_unknown_is_kept_for_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart.time, "sleep", lambda _: None)
    app, engine = fake_app(publishing=[lambda messages: [_copied(message) for message in messages]])
    task = app.task(name="t")(lambda: None)
    answers: Iterator[Callable[[Message], Answer]] = iter(
        [lambda _: Unknown("first"), *[lambda _: Full("default", 4, 4, "tasks", 0.01)] * 2, lambda one: _accepted(one)]
    )
    engine.broker.answer = lambda message: next(answers)(message)
    assert task.apply_async((), on_full=Backoff()).id == "first"
    assert [message.id for message in engine.broker.messages] == [None, "first", "first", "first"]


def test_what_is_unknown_is_not_tried_again_as_if_it_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    app, engine = fake_app(publish_timeout=0.001)
    engine.broker.answer = lambda _: Unknown("first")
    with pytest.raises(OutcomeUnknown):
        app.task(name="t")(lambda: None).apply_async((), on_full=Backoff())


# -- the budget


def test_all_calls_of_an_app_share_one_budget(stage: Stage) -> None:
    tasks = [stage.task(on_full=Backoff(cap=0.1, deadline=5.0)) for _ in range(2)]
    stage.fill(tasks[0])
    stage.pace = 0.1
    for task in tasks:
        with pytest.raises(QueueFull, match=r"s \(not tried again: .* spent its retries, publish_retry_budget=0.1\)"):
            task.delay(7)
    assert len(stage.pauses) == BUDGET
    stage.clock.advance(10)
    stage.between = stage.drain
    assert tasks[1].delay(7).state is State.PENDING


def test_without_a_bound_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, publish_retry_budget=None)
    task = stage.task(on_full=Backoff(base=0.01, cap=0.01, deadline=100.0))
    stage.fill(task)
    with pytest.raises(QueueFull):
        task.delay(7)
    assert len(stage.pauses) > 5 * BUDGET
    stage.app.close()


def test_a_part_that_is_none_is_refused() -> None:
    for bad in (-0.1, True, "10%", 1e9):
        with pytest.raises(ConfigError, match="publish_retry_budget must be retries for each publish"):
            Penstock("t", publish_retry_budget=bad)  # type: ignore[arg-type]


# -- running here


def test_what_a_full_queue_refuses_runs_here_and_has_a_result_like_any_other(stage: Stage) -> None:
    task = stage.task(on_full="run-inline")
    stage.fill(task)
    result = task.delay(7)
    assert stage.calls == [7]
    assert (result.get(), result.state, result.ready()) == (14, State.SUCCESS, True)
    assert stage.app.AsyncResult(result.id, task).get(timeout=0) == 14, "who has its id finds it, too"
    assert task.apply_async((8,), ignore_result=True).get() == 16
    assert stage.depth() == 4


def test_what_it_raises_is_in_its_result(stage: Stage) -> None:
    @stage.app.task(on_full="run-inline", name="fails", max_retries=2, autoretry_for=(OSError,))
    def fails() -> None:
        stage.calls.append(1)
        raise OSError("no")

    stage.fill(stage.task())
    with pytest.raises(OSError, match="no"):
        fails.delay().get()
    assert len(stage.calls) == 3, "its retries follow at once"


def test_in_a_loop_plain_functions_run_beside_it_and_coroutines_on_it(stage: Stage) -> None:
    threads: list[object] = []

    @stage.app.task(on_full="run-inline", name="plain")
    def plain() -> None:
        threads.append(threading.current_thread())

    @stage.app.task(on_full="run-inline", name="awaited")
    async def awaited() -> str:
        threads.append(asyncio.current_task())
        return "here"

    stage.fill(stage.task())

    async def main() -> None:
        await plain.adelay()
        assert await (await awaited.adelay()).aget() == "here"
        assert threads[1] is asyncio.current_task()

    asyncio.run(main())
    assert threads[0] is not threading.main_thread()


def test_many_run_here_one_by_one(stage: Stage) -> None:
    task = stage.task()
    stage.fill(task, 2)
    results = task.delay_many([(5,), (6,), (7,)], on_full="run-inline")
    assert [result.get() for result in results] == [10, 12, 14]
    assert stage.calls == [5, 6, 7]

    async def main() -> None:
        assert [await one.aget() for one in await task.adelay_many([(1,)] * 3, on_full="run-inline")] == [2] * 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"unique": True}, "unique is kept by the queue"),
        ({"rate_limit": "1/s"}, "rate_limit and concurrency_limit are kept by the queue"),
        ({"concurrency_limit": 1}, "rate_limit and concurrency_limit are kept by the queue"),
        ({"time_limit": 5}, "nothing keeps time_limit=5 there"),
        ({"soft_time_limit": 5}, "nothing keeps soft_time_limit=5 there"),
    ],
)
@pytest.mark.parametrize("option", [{"on_full": "run-inline"}, {"inline_below": "200us"}])
def test_a_task_that_cannot_run_here_is_refused_when_it_is_declared(
    stage: Stage, options: dict[str, Any], why: str, option: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"runs calls where they are made, and {why}: leave out one of them"):
        stage.task(**options, **option)
    with pytest.raises(ConfigError):
        Penstock("t", task_on_full="run-inline").task(name="x", **options)(print)
    if "unique" in options:
        task = stage.task(**options)
        for call in (task.apply_async, lambda args, on_full: task.delay_many([args], on_full=on_full)):
            with pytest.raises(ConfigError, match="on_full='run-inline' cannot be, since"):
                call((1,), on_full="run-inline")


@pytest.mark.parametrize(
    "options", [{"countdown": 5}, {"unique": "key"}, {"time_limit": 5}, {"partition": "p", "eta": NOW + 5}]
)
def test_a_call_that_cannot_run_here_is_refused_as_ever(stage: Stage, options: dict[str, Any]) -> None:
    task = stage.task(on_full="run-inline")
    stage.fill(task)
    with pytest.raises(QueueFull):
        task.apply_async((7,), **options)
    with pytest.raises(ConfigError, match="on_full='run-inline' cannot be, since"):
        task.apply_async((7,), on_full="run-inline", **options)
    assert stage.calls == []


def test_where_it_cannot_be_said(stage: Stage) -> None:
    task, app, backoff = stage.task(), stage.app, Backoff()
    for call, error in (
        (lambda: task.apply_async((1,), connection=object(), on_full=backoff), "a call in a transaction"),
        (lambda: app.batch(on_full="run-inline"), "cannot be for calls that are there all or none"),
        (lambda: app.batch(connection=object(), on_full=backoff), "cannot be for calls inside a transaction"),
        (lambda: app.batch(on_full="later"), "on_full must be 'raise', 'run-inline' or a Backoff"),  # type: ignore[arg-type]
        (
            lambda: task.delay_many([task.s(1).set(on_full=backoff)]),
            "call 1 of delay_many: on_full is for single calls",
        ),
        (lambda: task.delay_many([(1,)], on_full="later"), "on_full must be"),
        (lambda: (task.s(1) | task.s()).delay(), None),
        (lambda: (task.s(1).set(deadline=5) | task.s()).delay(), "a canvas: deadline is for single calls"),
        (lambda: (task.s(1) | task.s()).apply_async(on_full=backoff), "a canvas: on_full is for single calls"),
        (lambda: task.apply_async_on_commit((1,), deadline=5), "a call on commit: deadline is for single calls"),
        (lambda: app.spread(task.s().set(deadline=1), [1], name="s", rate=9), "a spread: deadline is for single calls"),
        (lambda: app.add_periodic_task(5, task, (1,), deadline=5), "deadline is for single calls"),
        (lambda: app.send_task("elsewhere", on_full="run-inline"), "no task of that name is registered here"),
        (lambda: task.apply_async((1,), on_full="later"), "on_full must be"),
        (lambda: task.apply_async((1,), deadline=1, expires=2), "give deadline, .* or expires, not both"),
        (lambda: stage.task(deadline=1, expires=2), "give deadline, .* or expires, not both"),
        (lambda: stage.task(inline_below="fast"), "inline_below must be seconds above 0"),
    ):
        if error is not None:
            with pytest.raises(ConfigError, match=error):
                call()

    with app.batch(), pytest.raises(ConfigError, match="a call in a batch"):
        task.apply_async((1,), on_full=backoff)


def _accepted(message: Message) -> Answer:
    from penstock.broker import Accepted

    return Accepted(message.id or 1)


def _copied(message: Message) -> Message:
    from msgspec.structs import replace

    return replace(message, headers={"tag": "1"})
