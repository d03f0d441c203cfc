"""Limits, unique tasks and snoozes, from the call to the end, on the memory engine's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import Penstock, Snooze, State, Task, TaskRevoked, chain, debounce, singleton, throttle
from penstock.contrib.rehearsal import Rehearsal, rehearse


@pytest.fixture
def app() -> Penstock:
    return Penstock("shop", broker="memory://")


@pytest.fixture
def tasks(app: Penstock) -> Iterator[Rehearsal]:
    with rehearse(app) as tasks:
        yield tasks


def test_a_rate_is_kept_and_neighbours_run(app: Penstock, tasks: Rehearsal) -> None:
    ran: list[str] = []
    slow = app.task(name="slow", rate_limit="6/m", limit_key="{customer}")(lambda customer: ran.append(customer))
    free = app.task(name="free")(lambda: ran.append("free"))
    slow.delay_many([("a",), ("a",), ("b",), ("a",)])
    free.delay()
    tasks.run_all()
    assert sorted(ran) == ["a", "b", "free"]
    begun = tasks.clock.time()
    tasks.run_to_end()
    assert sorted(ran) == ["a", "a", "a", "b", "free"]
    assert 19.9 <= tasks.clock.time() - begun <= 20.1


def test_time_is_not_spent_on_what_no_time_makes_ready(app: Penstock, tasks: Rehearsal) -> None:
    app.task(name="slow", rate_limit="1000/s")(lambda: None).delay_many([()] * 200)
    app.pause_queue("default")
    assert tasks.run_to_end() == []


def test_a_throttled_task_runs_once_in_a_while(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t", unique=throttle(60, "{key}"))(lambda key, value: value)
    first, second = task.delay("k", 1), task.delay("k", 2)
    other = task.delay("l", 3)
    tasks.run_all()
    assert (second.id, second.get(), other.get()) == (first.id, 1, 3)
    assert task.delay("k", 4).id == first.id, "also when the first has ended"
    tasks.clock.advance(61)
    later = task.delay("k", 5)
    tasks.run_all()
    assert later.get() == 5


def test_a_debounced_task_runs_when_calls_stop_with_the_last_arguments(app: Penstock, tasks: Rehearsal) -> None:
    ran: list[int] = []
    task = app.task(name="t", unique=debounce(30, "{key}"))(lambda key, value: ran.append(value))
    results = []
    for value in range(4):
        results.append(task.delay("k", value))
        tasks.clock.advance(20)
        tasks.run_all()
    assert ran == []
    tasks.run_to_end()
    assert ran == [3]
    with pytest.raises(TaskRevoked):
        results[0].get()
    assert results[3].state is State.SUCCESS


def test_a_singleton_that_cancels(app: Penstock, tasks: Rehearsal) -> None:
    ran: list[int] = []
    task = app.task(name="t", unique=singleton("k", "cancel"))(lambda value: ran.append(value))
    old = task.delay(1)
    task.delay(2)
    tasks.run_all()
    assert (ran, old.state) == ([2], State.REVOKED)


def test_a_snoozed_task_runs_again_and_spends_no_retry(app: Penstock, tasks: Rehearsal) -> None:
    seen: list[tuple[int, int]] = []

    @app.task(name="t", bind=True, max_retries=0)
    def asks(self: Any) -> str:
        seen.append((self.request.snoozes, self.request.retries))
        if self.request.snoozes < 2:
            raise Snooze.from_retry_after("7")
        return "done"

    result = asks.delay()
    tasks.run_all()
    assert result.state is State.RETRY
    begun = tasks.clock.time()
    tasks.run_to_end()
    assert tasks.clock.time() - begun == pytest.approx(14)
    assert (result.get(), seen) == ("done", [(0, 0), (1, 0), (2, 0)])
    assert result.retries == 0


def test_a_task_that_snoozes_for_ever_is_a_dead_letter(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t", bind=True, max_snoozes=3)
    def never(self: Any) -> None:
        self.snooze(5)

    result = never.delay()
    last = tasks.run_to_end()[-1]
    assert (last.state, result.state) == (State.FAILURE, State.FAILURE)
    [letter] = app.engine.run(app.engine.inspect.dead_letters())
    assert letter.message is not None
    assert letter.message.headers == {"penstock-snoozes": "3"}
    app.engine.run(app.engine.inspect.retry_dead([letter.id]))
    assert len(tasks.run_to_end()) == 4, "its counts are fresh"


def test_hooks_of_errors_hear_nothing_of_a_snooze(app: Penstock, tasks: Rehearsal) -> None:
    heard: list[str] = []

    class Hooked(Task[..., Any]):
        def on_retry(self, *_: Any) -> None:
            heard.append("retry")

    calls = iter([Snooze(1), None])

    def work() -> None:
        error = next(calls)
        if error is not None:
            raise error

    app.task(name="t", base=Hooked)(work).delay()
    tasks.run_to_end()
    assert heard == []


def test_what_a_beat_publishes_waits_for_its_limit_and_is_debounced(app: Penstock, tasks: Rehearsal) -> None:
    limited = app.task(name="limited", rate_limit="1/m")(lambda: None)
    quiet = app.task(name="quiet", unique=debounce(5, "q"))(lambda: None)
    app.add_periodic_task(10, limited.s())
    app.add_periodic_task(7, quiet.s())
    ran = [one.task for one in tasks.run_schedules(121)]
    assert ran.count("limited") in (2, 3), "of twelve ticks"
    assert ran.count("quiet") >= 15, "seven seconds are longer than five"


def test_a_part_of_a_canvas_waits_for_its_limit(app: Penstock, tasks: Rehearsal) -> None:
    add = app.task(name="add", rate_limit="1/m")(lambda x, y: x + y)
    result = chain(add.s(1, 1), add.s(1), add.s(1)).delay()
    begun = tasks.clock.time()
    tasks.run_to_end()
    assert result.get() == 4
    assert 119 < tasks.clock.time() - begun < 121


def test_eagerly_nothing_waits_for_a_limit_or_a_snooze(app: Penstock) -> None:
    calls = iter([Snooze(1000), 5])

    def work() -> int:
        step = next(calls)
        if isinstance(step, Snooze):
            raise step
        return step

    task = app.task(name="t", rate_limit="1/h", concurrency_limit=1)(work)
    assert task.apply().get() == 5


def test_what_is_acknowledged_early_pays_for_its_retry(app: Penstock, tasks: Rehearsal) -> None:
    calls = iter([True, False])

    def work() -> None:
        if next(calls):
            raise OSError

    task = app.task(name="t", acks_late=False, rate_limit="1/m", autoretry_for=(OSError,), default_retry_delay=0)(work)
    task.delay()
    assert len(tasks.run_all()) == 1
    begun = tasks.clock.time()
    assert len(tasks.run_to_end()) == 1
    assert tasks.clock.time() - begun > 59


def test_awaited_as_well(app: Penstock, tasks: Rehearsal) -> None:
    ran: list[int] = []
    task = app.task(name="t", rate_limit="1/s")(lambda value: ran.append(value))

    async def calls() -> None:
        await task.adelay_many([(1,), (2,)])
        await tasks.arun_to_end()

    asyncio.run(calls())
    assert ran == [1, 2]
