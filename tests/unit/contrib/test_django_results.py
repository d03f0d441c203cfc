"""`result_backend="django-db"`: what the app sees, and what it is told when something is missing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Penstock
from penstock.clock import ManualClock
from penstock.errors import BrokerError, ConfigError, Unsupported
from penstock.outcome import Outcome, Progress, State
from tests import django_project
from tests.transactions.callers import django_default

django_project.set_up()
ANSWER = 20.0


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}
    with django_default({**place, "OPTIONS": {"transaction_mode": "IMMEDIATE"}}) as connection:
        yield connection


@pytest.fixture
def database(connection: Any) -> Any:
    from django.core.management import call_command

    call_command("migrate", "penstock", verbosity=0)
    return connection


@pytest.fixture
def app(database: Any, tmp_path: Path) -> Iterator[Penstock]:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path}/queue.db?durability=process", result_backend="django-db://")
    app.task(name="double")(lambda number: number * 2)
    yield app
    app.close()


def opened(clock: ManualClock, expires: float = 60.0) -> Any:
    from penstock.contrib.django.result_store import open_engine

    return open_engine("django-db://", clock=clock, result_expires=expires)


def run(app: Penstock) -> None:
    from penstock.worker import Worker, WorkerOptions

    assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run() == 0


def test_who_waits_in_another_thread_is_told(app: Penstock) -> None:
    result = app.tasks["double"].delay(4)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(result.get(timeout=ANSWER)))
    waiter.start()
    run(app)
    waiter.join(ANSWER)
    assert found == [8]


def test_who_awaits_is_told(app: Penstock) -> None:
    result = app.tasks["double"].delay(5)
    run(app)

    async def wait() -> Any:
        assert (await result.areport()).state == State.SUCCESS
        return await app.AsyncResult(result.id).aget(timeout=ANSWER)

    assert asyncio.run(wait()) == 10


def test_a_call_in_a_loop_is_answered(app: Penstock) -> None:
    """Django refuses queries of a thread with a running loop."""
    result = app.tasks["double"].delay(6)
    run(app)

    async def look() -> Any:
        return app.AsyncResult(result.id).state

    assert asyncio.run(look()) == State.SUCCESS


def test_what_is_stored_does_not_go_with_the_callers_transaction(database: Any) -> None:
    from django.db import transaction

    database.settings_dict["OPTIONS"].pop("transaction_mode")  # a transaction that has written nothing yet
    database.close()
    engine = opened(ManualClock())
    with pytest.raises(ArithmeticError), transaction.atomic():
        engine.run(engine.backend.store([("one", Outcome(State.SUCCESS, b"1", 0.0))]))
        raise ArithmeticError
    assert engine.run(engine.backend.fetch(["one"]))[0].state == State.SUCCESS
    engine.close()


def test_results_expire(database: Any) -> None:
    from penstock.contrib.django.models import StoredResult

    clock = ManualClock()
    engine = opened(clock)
    engine.run(engine.backend.store([("one", Outcome(State.SUCCESS, b"1", clock.time()))]))
    clock.advance(59)
    assert engine.run(engine.backend.fetch(["one"]))[0].state == State.SUCCESS
    clock.advance(2)
    assert engine.run(engine.backend.fetch(["one"]))[0].state == State.UNKNOWN
    assert engine.run(engine.backend.store([("one", Outcome(State.FAILURE, b"2", clock.time()))])) == [True]
    clock.advance(61)
    engine.run(engine.coordinator.reap())
    assert not StoredResult.objects.exists()


def test_without_an_end_they_stay(database: Any) -> None:
    clock = ManualClock()
    engine = opened(clock, float("inf"))
    engine.run(engine.backend.store([("one", Outcome(State.SUCCESS, b"1", clock.time()))]))
    clock.advance(1e9)
    engine.run(engine.coordinator.reap())
    assert engine.run(engine.backend.fetch(["one"]))[0].state == State.SUCCESS


def test_progress_until_the_end(database: Any) -> None:
    clock = ManualClock()
    engine = opened(clock)
    for done in (1.0, 2.0):
        engine.run(engine.backend.note("one", Progress(done, 9.0, "on the way")))
    [report] = engine.run(engine.backend.fetch(["one"]))
    assert (report.state, report.progress) == (State.STARTED, Progress(2.0, 9.0, "on the way"))
    assert engine.run(engine.backend.store([("one", Outcome(State.SUCCESS, b"1", clock.time()))])) == [True]
    engine.run(engine.backend.note("one", Progress(3.0)))
    [report] = engine.run(engine.backend.fetch(["one"]))
    assert (report.state, report.progress) == (State.SUCCESS, None)


def test_of_many_processes_one_is_first(database: Any, tmp_path: Path) -> None:
    ids = [f"id-{number}" for number in range(50)]
    firsts: list[list[bool]] = []
    ready = threading.Barrier(4)

    def store(number: int) -> None:
        engine = opened(ManualClock())
        outcomes = [(one, Outcome(State.SUCCESS, b"%d" % number, 0.0)) for one in ids]
        ready.wait(ANSWER)
        firsts.append(list(engine.run(engine.backend.store(outcomes))))
        engine.close()

    threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(ANSWER)
    assert [sum(column) for column in zip(*firsts, strict=True)] == [1] * len(ids)


def test_without_its_table_the_remedy_is_told(connection: Any) -> None:
    engine = opened(ManualClock())
    with pytest.raises(BrokerError, match=r"no such table.*manage\.py migrate penstock"):
        engine.run(engine.backend.fetch(["one"]))


def test_it_is_no_broker(database: Any) -> None:
    engine = opened(ManualClock())
    with pytest.raises(Unsupported, match="django-db keeps results only"):
        engine.run(engine.broker.publish([], 1.0))
    with pytest.raises(ConfigError, match="there is no 'other' in Django's DATABASES, which has 'default'"):
        from penstock.contrib.django.result_store import open_engine

        open_engine("django-db://other")
