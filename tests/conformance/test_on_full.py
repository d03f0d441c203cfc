"""Callers of a queue that is really full, on every engine with bounds: what they are told, and that they get in."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import Backoff, Penstock, Queue, State, apart
from penstock.broker import Demand, Full
from penstock.delivery import ACK, Settlement
from penstock.errors import QueueFull
from tests.servers import Server

SERVERS = ("redis_url", "postgres_url", "broker")


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    given = request.getfixturevalue(request.param)
    return given.url if isinstance(given, Server) else str(given)


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    """Its task `t` has a queue that holds 40 tasks."""
    queue = Queue(f"full-{secrets.token_hex(4)}", 40)
    made = Penstock("full", broker=url, task_queues=[queue])
    made.task(name="t", queue=queue.name)(lambda number: number)
    yield made
    made.close()


@pytest.mark.parametrize("namespace", ["", "shop"])
def test_a_declared_bound_holds_in_the_namespace_of_its_app(url: str, namespace: str) -> None:
    queue = Queue(f"bound-{secrets.token_hex(4)}", 3)
    app = Penstock("full", broker=url, namespace=namespace, task_queues=[queue])
    task = app.task(name="t", queue=queue.name)(lambda: None)
    for _ in range(3):
        task.delay()
    with pytest.raises(QueueFull) as refused:
        task.delay()
    assert refused.value.limit == 3
    app.close()


def drain(app: Penstock, count: int) -> None:
    run, queue = app.engine.run, app.tasks["t"].options.queue
    assert queue is not None
    found = run(app.engine.broker.step([], Demand((queue,), count, "worker"))).deliveries
    assert len(found) == count
    run(app.engine.broker.step([Settlement(one.receipt, ACK) for one in found], None))


def on_pause(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> list[float]:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        act(len(pauses))

    monkeypatch.setattr(apart.time, "sleep", pause)
    return pauses


def test_who_backs_off_gets_in_when_there_is_room(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    task = app.tasks["t"]
    task.delay_many([(number,) for number in range(40)])
    pauses = on_pause(monkeypatch, lambda tries: drain(app, 1) if tries == 3 else None)
    result = task.apply_async((7,), on_full=Backoff())
    assert len(pauses) == 3
    assert all(pause >= 0.9 for pause in pauses)
    assert result.state is State.PENDING
    assert app.engine.run(app.broker.depth(str(task.options.queue), "")) == 40
    with pytest.raises(QueueFull):
        task.delay_many([(number,) for number in range(2)], on_full=Backoff(deadline=0.5))


def test_what_runs_here_is_found_by_its_id(app: Penstock) -> None:
    task = app.tasks["t"]
    task.delay_many([(number,) for number in range(40)])
    result = task.apply_async((7,), on_full="run-inline")
    assert result.get() == 7
    assert app.AsyncResult(result.id, task).get(timeout=5) == 7
    again = task.apply_async((8,), on_full="run-inline", task_id="mine")
    assert again.get() == 8
    assert task.apply_async((9,), on_full="run-inline", task_id="mine").get(timeout=5) == 8, "a repeat is recognised"


def test_what_is_told_is_the_rate_between_two_refusals(app: Penstock) -> None:
    task, run = app.tasks["t"], app.engine.run
    task.delay_many([(number,) for number in range(40)])
    message = app.client.prepare(task, (1,), {})

    def told() -> float:
        [answer] = run(app.engine.broker.publish([message], 5.0))
        assert isinstance(answer, Full)
        return answer.retry_after

    assert 0.9 <= told() <= 1.1
    wait_a_little()
    drain(app, 30)
    task.delay_many([(number,) for number in range(30)])
    assert told() < 0.8, "twenty take no longer, where thirty have left in less than a second"


def wait_a_little() -> None:
    import time

    time.sleep(0.25)
