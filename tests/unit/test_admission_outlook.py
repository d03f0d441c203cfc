"""Deadlines, and tasks that are cheaper where they are called; as in test_admission.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import (
    DeadlineUnmeetable,
    QueueFull,
    State,
)
from penstock.pressure.keeper import Keeper, Local
from penstock.pressure.samples import Samples, Times
from tests.unit.admission_stage import NOW, Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch)
    yield made
    made.app.close()


# -- trying again


def test_a_call_that_could_not_start_in_time_is_refused(stage: Stage) -> None:
    task = stage.task(queue="long")
    task.delay_many([(number,) for number in range(500)])
    stage.pass_seconds(4, 100, task)  # about a hundred are left, at a hundred a second
    assert task.apply_async((1,), deadline=2.0).state is State.PENDING
    task.delay_many([(number,) for number in range(400)])
    stage.pass_seconds(1, 100, task)
    with pytest.raises(DeadlineUnmeetable, match="must in 2 s; try again in") as raised:
        task.apply_async((1,), deadline=2.0)
    found = raised.value
    assert isinstance(found, QueueFull)
    assert 3.5 < found.wait < 4.5
    assert found.retry_after == pytest.approx(found.wait - 2.0)
    assert (found.queue, found.limit) == ("long", 10_000)
    assert task.apply_async((1,), deadline=10.0).state is State.PENDING
    assert task.apply_async((1,), expires=2.0).state is State.PENDING, "that is only not run, as ever"
    at = datetime.fromtimestamp(stage.clock.time() + 2.0, UTC)
    with pytest.raises(DeadlineUnmeetable):
        asyncio.run(task.aapply_async((1,), deadline=at))


def test_what_is_urgent_or_delayed_is_let_in(stage: Stage) -> None:
    task = stage.task(queue="long")
    task.delay_many([(number,) for number in range(1_000)])
    stage.pass_seconds(3, 100, task)
    for options in ({"priority": 9}, {"countdown": 1}):
        assert task.apply_async((1,), deadline=2.0, **options).state is State.PENDING


def test_without_a_live_rate_it_is_let_in(stage: Stage) -> None:
    task = stage.task(queue="long")
    task.delay_many([(number,) for number in range(1_000)])
    assert task.apply_async((1,), deadline=0.1).state is State.PENDING
    stage.pass_seconds(3, 0, task)
    assert task.apply_async((1,), deadline=0.1).state is State.PENDING, "nobody works"
    stage.pass_seconds(3, 100, task)
    with pytest.raises(DeadlineUnmeetable):
        task.apply_async((1,), deadline=0.1)
    stage.clock.advance(40)
    assert task.apply_async((1,), deadline=0.1).state is State.PENDING, "that was long ago"


def test_a_burst_into_an_idle_queue_is_no_slow_queue(stage: Stage) -> None:
    """The queue was nearly empty: that few tasks left it says nothing of how fast it is."""
    task = stage.task(queue="long")
    for _ in range(10):
        task.apply_async((1,), deadline=1_000)
        stage.clock.advance(0.5)
        stage.drain(5, "long")
    task.delay_many([(number,) for number in range(1_000)])
    stage.clock.advance(0.5)
    assert task.apply_async((1,), deadline=1.0).state is State.PENDING


def test_a_deadline_that_has_passed_is_refused(stage: Stage) -> None:
    task = stage.task()
    with pytest.raises(DeadlineUnmeetable):
        task.apply_async((1,), deadline=datetime.fromtimestamp(NOW - 1, UTC))
    assert stage.depth() == 0


def test_the_deadline_of_a_task_is_that_of_each_call(stage: Stage) -> None:
    task, patient = stage.task(queue="long", deadline=2.0), stage.task(queue="long")
    patient.delay_many([(number,) for number in range(1_000)])
    stage.pass_seconds(3, 100, patient)
    for call in (lambda: task.delay(1), lambda: task.delay_many([(1,)]), lambda: stage.app.send_task(task.name, (1,))):
        with pytest.raises(DeadlineUnmeetable):
            call()
    with pytest.raises(DeadlineUnmeetable), stage.app.batch():
        task.delay(1)
    assert task.apply_async((1,), expires=100).state is State.PENDING
    assert task.apply_async((1,), deadline=100).state is State.PENDING


def test_one_that_may_run_here_does_when_it_would_be_too_late(stage: Stage) -> None:
    task = stage.task(queue="long", on_full="run-inline")
    task.delay_many([(number,) for number in range(1_000)])
    stage.pass_seconds(3, 100, task)
    stage.calls.clear()
    assert task.apply_async((7,), deadline=0.5).get() == 14
    assert stage.calls == [7]


def test_most_calls_do_no_io(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    task, looks = stage.task(queue="long"), []
    inspect = stage.app.engine.inspect
    real = inspect.queues
    monkeypatch.setattr(inspect, "queues", lambda *args: looks.append(args) or real(*args))
    for _ in range(100):
        task.apply_async((1,), deadline=5)
        stage.clock.advance(0.02)
    assert 3 <= len(looks) <= 5
    for _ in range(100):
        task.delay(1)
        stage.clock.advance(1)
    assert len(looks) <= 5


# -- short tasks


def sampled(stage: Stage, task: Any, own: float, overhead: float, count: int = 100, tail: float = 0.0) -> None:
    times = Times()
    for number in range(count):
        times.add(own + overhead + (tail if number % 100 == 0 else 0.0), 1.0, overhead)
    local = Local(1, [Samples([("default", task.name, times)], {})])
    stage.app.engine.run(Keeper(stage.app, ("default",), lambda: local).tick(stage.clock.monotonic()))


def test_a_short_task_runs_where_it_is_called_once_that_is_known(stage: Stage) -> None:
    task = stage.task(inline_below="200us")
    task.delay(1)
    assert (stage.calls, stage.depth()) == ([], 1)
    sampled(stage, task, 50e-6, 2e-3)
    task.delay(2)
    assert (stage.calls, stage.depth()) == ([], 2), "it looks every ten seconds"
    stage.clock.advance(11)
    assert task.delay(3).get() == 6
    assert (stage.calls, stage.depth()) == ([3], 2)
    assert asyncio.run(task.adelay(4)).get() == 8
    task.apply_async((5,), countdown=1)
    with stage.app.batch():
        task.delay(6)
    assert (stage.calls, stage.depth()) == ([3, 4], 4)


@pytest.mark.parametrize(
    "times",
    [{"own": 300e-6, "overhead": 0.0}, {"own": 50e-6, "overhead": 0.0, "tail": 12e-3}, {"own": 1e-5, "count": 5}],
)
def test_one_that_is_long_or_sometimes_long_or_hardly_known_is_queued(stage: Stage, times: dict[str, Any]) -> None:
    task = stage.task(inline_below=200e-6)
    sampled(stage, task, **{"overhead": 0.0, **times})
    task.delay(1)
    assert (stage.calls, stage.depth()) == ([], 1)
