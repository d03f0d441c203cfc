"""A shop whose orders and tasks commit together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from penstock import Penstock, Queue
from penstock.worker import Worker, WorkerOptions
from tests.transactions.callers import CALLERS, run
from tests.transactions.shop import Test, database, ship


@pytest.fixture(scope="session")
def url(postgres_url: str) -> str:
    """A database of these tests' own."""
    own = database(postgres_url, "callers")
    with psycopg.connect(own) as connection:
        connection.execute("CREATE TABLE orders (n integer)")
    return own


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS penstock CASCADE; TRUNCATE orders")
    app = Penstock("shop", broker=url, task_queues=[Queue("default"), Queue("tiny", max_length=3)])
    app.task(name="ship", unique=False)(ship)
    app.broker  # noqa: B018  # opened outside of any loop
    yield app
    app.close()


@pytest.fixture
def worker(app: Penstock) -> Iterator[None]:
    """Of the same app, in this process."""
    worker = Worker(app, WorkerOptions(pool="solo", loglevel="CRITICAL"))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    yield
    while worker._runs is None and thread.is_alive():
        time.sleep(0.01)
    worker.stop()
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, url: str) -> Callable[[Test], None]:
    """Runs a test with an open connection of each kind."""

    def in_turn(test: Test) -> None:
        async def with_caller() -> None:
            async with CALLERS[request.param](url) as caller:
                await test(caller)

        run(request.param, with_caller())

    return in_turn


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url) as connection:
        yield connection
