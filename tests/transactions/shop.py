"""What the tests of transactions share: a task, a table of orders, a database of one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg

from penstock import Penstock
from tests.transactions.callers import Caller

Test = Callable[[Caller], Awaitable[None]]


def database(postgres_url: str, name: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres_url.rpartition('/')[0]}/{name}"


def ship(order: int) -> int:
    return order * 2


def orders(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM orders").fetchone()
        assert row is not None
        return int(row[0])


def depth(app: Penstock, queue: str = "default") -> int | None:
    return app.engine.run(app.broker.depth(queue))
