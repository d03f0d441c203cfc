"""What hurts users of Celery most, and does not here. Where no test is, docs/celery-checklist.toml names another."""

from __future__ import annotations

import gc
import re
import socket
import time
from pathlib import Path

import pytest

from penstock import BrokerUnavailable, Penstock, Queue, QueueFull, ResultUnavailable, State
from penstock.contrib.clock import TravelClock
from penstock.dispatch import Call
from penstock.worker import Worker, WorkerOptions
from tests.celery.conftest import Work

GARBAGE = 300
"""Objects that a worker may have more or fewer by chance."""


def test_pain_02_eta_tasks_are_not_hoarded_by_a_worker(app: Penstock, work: Work) -> None:
    task = app.task(name="t")(lambda x: x)
    later = task.delay_many([task.signature((n,), countdown=600) for n in range(2_000)])
    now = task.delay(1)
    work()
    assert now.get(timeout=5) == 1
    [queue] = app.engine.run(app.engine.inspect.queues(""))
    assert (queue.delayed, queue.leased, queue.ready) == (2_000, 0, 0)
    assert later[0].state is State.PENDING


def test_pain_10_a_worker_holds_no_more_after_many_tasks_than_after_few(app: Penstock, work: Work) -> None:
    @app.task(name="t")
    def task(x: int) -> dict[str, int]:
        if x % 10 == 0:
            raise ValueError(x)
        return {"x": x}

    def after(count: int) -> int:
        task.delay_many([(n,) for n in range(count)])
        work()
        gc.collect()
        return len(gc.get_objects())

    after(200)
    few = after(200)
    assert abs(after(4_000) - few) < GARBAGE


def test_pain_12_a_result_server_that_is_down_holds_up_no_publish(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        app = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", result_backend=url)
        task = app.task(name="t", ignore_result=True)(lambda: None)
        before = time.monotonic()
        task.delay()
        task.delay_many([(), ()])
        with app.batch():
            task.delay()
        app.send_task("elsewhere", ignore_result=True)
        with pytest.raises(BrokerUnavailable, match=re.escape(url)):  # and says so at once, where it is needed
            task.apply_async(ignore_result=False)
        assert time.monotonic() - before < 3
        [queue] = app.engine.run(app.engine.inspect.queues(""))
        assert queue.ready == 5
        app.close()


def test_pain_13_an_id_that_nobody_knows_is_not_pending(app: Penstock) -> None:
    task = app.task(name="t")(lambda: None)
    assert task.delay().state is State.PENDING  # from the moment of the call, without a setting
    unknown = app.AsyncResult("no-such-task")
    assert unknown.state is State.UNKNOWN and not unknown.exists()
    with pytest.raises(ResultUnavailable):
        unknown.get()  # without a timeout, and does not wait


def test_pain_14_a_revoked_task_stays_revoked_when_everybody_was_away(tmp_path: Path) -> None:
    clock = TravelClock()

    def shop() -> Penstock:
        return Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", durability="process", clock=clock)

    ran: list[int] = []
    app = shop()
    task = app.task(name="t")(ran.append)
    waiting, delayed = task.delay(1).id, task.apply_async((2,), countdown=60).id
    for id in (waiting, delayed, "comes-later"):
        app.AsyncResult(id).revoke()
    app.close()
    app = shop()
    task = app.task(name="t")(ran.append)
    task.apply_async((3,), task_id="comes-later")
    task.delay(4)
    clock.advance(90)
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL")).run()
    assert ran == [4]
    assert {app.AsyncResult(id).state for id in (waiting, delayed, "comes-later")} == {State.REVOKED}
    app.close()


def test_pain_16_a_full_queue_says_so_to_its_callers(tmp_path: Path) -> None:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", task_queues=[Queue("default", max_length=10)])
    task = app.task(name="t")(lambda x: x)
    task.delay_many([(n,) for n in range(10)])
    with pytest.raises(QueueFull) as full:
        task.delay(10)
    assert full.value.retry_after > 0
    app.close()


def test_pain_17_limits_hold_over_all_workers_and_hold_back_no_neighbour(
    app: Penstock, clock: TravelClock, work: Work
) -> None:
    ran: list[str] = []
    slow = app.task(name="slow", rate_limit="2/s")(lambda: ran.append("slow"))
    other = app.task(name="other")(lambda: ran.append("other"))
    alone = app.task(name="alone", unique=True)(lambda: ran.append("alone"))
    slow.delay_many([()] * 10)
    other.delay_many([()] * 5)
    assert alone.delay() == alone.delay()
    work()
    work()  # a second worker at once, as one of many
    assert [ran.count(name) for name in ("slow", "other", "alone")] == [1, 5, 1]
    for _ in range(4):
        clock.advance(0.5)
        work()
    assert ran.count("slow") == 5
    alone.delay()  # the key went with its task
    work()
    assert ran.count("alone") == 2


def test_pain_19_many_calls_go_in_few_transactions(tmp_path: Path) -> None:
    calls: list[Call] = []
    app = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", observers=[calls.append])
    task = app.task(name="t")(lambda x: x)
    assert len(task.delay_many([(n,) for n in range(5_000)])) == 5_000
    assert sum(call.verb == "publish" for call in calls) == 5
    app.close()
