"""Database connections are closed around tasks, and never under somebody else's feet."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from penstock import Penstock
from penstock.contrib.rehearsal import Rehearsal, rehearse
from tests.transactions.callers import django_default


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    with django_default({"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}) as found:
        yield found


@pytest.fixture
def queue(connection: Any) -> Iterator[Rehearsal]:
    from penstock.contrib.django import CloseConnections

    app = Penstock("shop", running=[CloseConnections()])
    with rehearse(app) as rehearsal:
        yield rehearsal


def query(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_old_connections_are_closed_before_and_after(queue: Rehearsal, connection: Any) -> None:
    seen = []

    @queue.app.task(name="look")
    def look() -> None:
        seen.append(connection.connection)
        query(connection)
        assert connection.connection is not None

    @queue.app.task(name="fail")
    def fail() -> None:
        query(connection)
        raise KeyError

    query(connection)
    look.delay()
    queue.run_all()
    assert seen == [None] and connection.connection is None
    fail.delay()
    queue.run_all()
    assert connection.connection is None


def test_one_in_a_transaction_is_left_alone(queue: Rehearsal, connection: Any) -> None:
    from django.db import transaction

    task = queue.app.task(name="query")(lambda: query(connection))
    with transaction.atomic():
        query(connection)
        raw = connection.connection
        task.delay()
        queue.run_all()
        assert connection.connection is raw


def test_a_coroutine_queries_in_another_thread(queue: Rehearsal) -> None:
    from django.db import connections

    seen: list[Any] = []

    @queue.app.task(name="count")
    async def count() -> None:
        await sync_to_async(look)()

    def look() -> None:
        seen.extend((threading.current_thread(), connections["default"], connections["default"].connection))
        query(connections["default"])

    for _ in range(2):
        count.delay()
        queue.run_all()
        assert seen[-3] is not threading.current_thread()
        assert seen[-1] is None and seen[-2].connection is None


def test_what_was_inherited_by_a_fork_is_dropped_unclosed(
    queue: Rehearsal, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (around,) = queue.app.running
    query(connection)
    raw = connection.connection
    monkeypatch.setattr(os, "getpid", lambda: -1)
    around(None, lambda: None)  # type: ignore[arg-type]  # it does not look at the delivery
    assert connection.connection is None
    assert raw.execute("SELECT 1").fetchone() == (1,)
    raw.close()
    query(connection)
    raw = connection.connection
    around(None, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="closed"):
        raw.execute("SELECT 1")
