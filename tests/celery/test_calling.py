"""The ways to call a task, and the options of one call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock import EagerResult, Penstock, State
from penstock.contrib.clock import TravelClock
from tests.celery.conftest import Work


def test_delay_apply_async_send_task_and_apply(app: Penstock, work: Work) -> None:
    @app.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    results = [
        add.delay(1, y=2),
        add.apply_async((1, 2)),
        add.apply_async(args=[1], kwargs={"y": 2}),
        app.send_task("add", args=(1, 2)),
        add.s(1, 2).delay(),
        app.signature("add", args=(1, 2)).apply_async(),
    ]
    work()
    assert [result.get(timeout=5) for result in results] == [3] * 6
    here = add.apply((1, 2))
    assert isinstance(here, EagerResult) and here.get() == 3 and here.state == "SUCCESS"
    assert add(1, 2) == 3
    assert add.AsyncResult(results[0].id).get() == app.AsyncResult(results[0].id).get() == 3


def test_options_of_a_call(app: Penstock, clock: TravelClock, work: Work) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def look(self: Any) -> None:
        request = self.request
        seen.append((request.id, request.priority, request.headers, request.eta, request.expires))

    now = datetime.fromtimestamp(clock.time(), UTC)
    soon = now + timedelta(seconds=30)
    look.apply_async(
        task_id="mine",
        eta=soon,
        expires=now + timedelta(minutes=1),
        priority=7,
        headers={"a": "b"},
        serializer="msgpack",
        compression="zlib",
        soft_time_limit=10,
        ignore_result=False,
    )
    later = look.apply_async(countdown=600)
    gone = look.apply_async(expires=10)
    assert later.state == "PENDING"
    clock.advance(45)
    work()
    [(id, priority, headers, eta, expires)] = seen
    assert (id, priority, headers) == ("mine", 7, {"a": "b"})
    assert abs(eta - soon.timestamp()) < 0.01 and expires > clock.time()
    assert gone.state is State.REVOKED


def test_a_call_goes_to_the_queue_that_it_names(app: Penstock) -> None:
    look = app.task(name="look")(lambda: None)
    assert look.apply_async(queue="mail").queue == "mail"


def test_eager_settings(app: Penstock) -> None:
    app.configure(task_always_eager=True, task_eager_propagates=True, task_store_eager_result=True)

    @app.task
    def divide(x: int, y: int) -> float:
        return x / y

    result = divide.delay(6, 3)
    assert isinstance(result, EagerResult) and result.get() == 2
    assert app.AsyncResult(result.id).get(timeout=5) == 2
    with pytest.raises(ZeroDivisionError):
        divide.delay(1, 0)
