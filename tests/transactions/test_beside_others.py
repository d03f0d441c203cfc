"""Beside other transactions: who waits, who is woken, what stricter isolation means."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from penstock import Penstock, QueueFull, State, Unique
from tests.transactions.shop import depth, orders


def test_without_a_transaction_it_exists_at_once(app: Penstock, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        assert app.tasks["ship"].apply_async((1,), connection=connection).state is State.PENDING


def test_by_name(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    result = app.send_task("elsewhere", connection=connection)
    assert result.state is State.UNKNOWN
    connection.commit()
    assert result.state is State.PENDING


def test_a_batch_is_published_at_the_end_of_its_block(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    with app.batch(connection=connection):
        results = [ship.delay(1), *ship.delay_many([(2,), (3,)]), app.send_task("other", queue="other", priority=9)]
    assert len({result.id for result in results}) == 4
    assert {result.state for result in results} == {State.UNKNOWN}
    connection.commit()
    assert {result.state for result in results} == {State.PENDING}
    assert (depth(app), depth(app, "other")) == (3, 1)


def test_a_batch_that_does_not_fit_is_refused_whole(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    with pytest.raises(QueueFull), app.batch(connection=connection):
        for n in range(4):
            ship.apply_async((n,), queue="tiny")
    connection.commit()
    assert depth(app, "tiny") == 0


def test_it_waits_for_others_in_their_order(app: Penstock, connection: psycopg.Connection[Any], worker: None) -> None:
    """Many tasks at once, and large ones, arrive whole."""
    with app.batch(connection=connection):
        results = [app.tasks["ship"].delay(n) for n in range(1000)]
    connection.commit()
    assert [result.get(timeout=30) for result in results] == [2 * n for n in range(1000)]


def test_others_publish_while_a_transaction_is_open(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    """Near the bound, too: it holds no lock for which they would wait."""
    ship = app.tasks["ship"]
    ship.apply_async((0,), queue="tiny")
    ship.apply_async((1,), queue="tiny", connection=connection)
    started = time.monotonic()
    ship.apply_async((2,), queue="tiny")
    ship.delay(2)
    assert time.monotonic() - started < 2
    connection.commit()
    assert depth(app, "tiny") == 3


def test_others_are_woken_while_a_transaction_is_open(
    app: Penstock, url: str, connection: psycopg.Connection[Any], worker: None
) -> None:
    ship = app.tasks["ship"]
    assert ship.delay(1).get(timeout=10) == 2
    with psycopg.connect(url, autocommit=True) as looking:
        wait_until_asleep(looking)
        result = ship.apply_async((2,), connection=connection)
        times = []
        for n in range(7):
            wait_until_asleep(looking)
            started = time.monotonic()
            assert ship.delay(n).get(timeout=10) == 2 * n
            times.append(time.monotonic() - started)
    assert sorted(times)[3] < 0.15
    connection.rollback()
    assert result.state is State.UNKNOWN


def test_the_commit_wakes_who_sleeps(app: Penstock, connection: psycopg.Connection[Any], worker: None) -> None:
    """A worker looks by itself about once a second: the wait for that would show in the middle one of these times."""
    ship = app.tasks["ship"]
    assert ship.delay(1).get(timeout=10) == 2
    times = []
    for n in range(7):
        wait_until_asleep(connection)
        result = ship.apply_async((n,), connection=connection)
        committed = time.monotonic()
        connection.commit()
        assert result.get(timeout=10) == 2 * n
        times.append(time.monotonic() - committed)
    assert sorted(times)[3] < 0.15


def wait_until_asleep(connection: psycopg.Connection[Any]) -> None:
    """Until a worker is registered as sleeping, and a moment longer, in which it looks for the last time."""
    for _ in range(1000):
        row = connection.execute("SELECT count(*) FROM penstock.waiting").fetchone()
        connection.rollback()
        if row is not None and row[0]:
            time.sleep(0.2)
            return
        time.sleep(0.01)
    raise AssertionError("nobody sleeps")


@pytest.mark.parametrize("commits", [True, False])
def test_a_unique_key_waits_for_who_had_it_first(
    app: Penstock, url: str, connection: psycopg.Connection[Any], commits: bool
) -> None:
    ship = app.tasks["ship"]
    unique = Unique("ship:{order}")
    first = ship.apply_async((1,), unique=unique, connection=connection)
    found: list[str] = []

    def another() -> None:
        with psycopg.connect(url) as other:
            other.execute("INSERT INTO orders VALUES (1)")
            found.append(ship.apply_async((1,), unique=unique, connection=other).id)

    thread = threading.Thread(target=another)
    thread.start()
    wait_until_blocked(url)
    assert not found
    connection.commit() if commits else connection.rollback()
    thread.join(10)
    assert (found == [first.id]) is commits
    assert len(found) == orders(url) == 1


def wait_until_blocked(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1000):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'callers' AND wait_event_type = 'Lock'"
            ).fetchone()
            if row is not None and row[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_stricter_isolation(app: Penstock, connection: psycopg.Connection[Any], level: str) -> None:
    connection.isolation_level = psycopg.IsolationLevel[level]
    app.tasks["ship"].delay(1)
    result = app.tasks["ship"].apply_async((1,), connection=connection)
    app.tasks["ship"].delay(1)
    connection.commit()
    assert result.state is State.PENDING


def test_failed_serialization_is_for_the_caller_to_repeat(
    app: Penstock, url: str, connection: psycopg.Connection[Any]
) -> None:
    """As it came: there may be a loop that waits for this error."""
    ship = app.tasks["ship"]
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT 1")
    ship.apply_async((1,), unique="ship:{order}")
    with pytest.raises(psycopg.errors.SerializationFailure):
        ship.apply_async((1,), unique="ship:{order}", connection=connection)


def test_two_serializable_callers_of_one_queue(app: Penstock, url: str, connection: psycopg.Connection[Any]) -> None:
    """Both have counted what is there: one of them has to repeat."""
    ship = app.tasks["ship"]
    with psycopg.connect(url) as other:
        other.isolation_level = connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        ship.apply_async((1,), connection=connection)
        ship.apply_async((2,), connection=other)
        connection.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.commit()
    assert depth(app) == 1


def test_results_elsewhere_find_it(app: Penstock, url: str, connection: psycopg.Connection[Any]) -> None:
    other = Penstock("shop", broker=url, result_backend="memory://")
    result = other.send_task("ship", (1,), connection=connection)
    connection.commit()
    assert other.engine.run(other.broker.depth("default")) == 1
    assert result.id
    other.close()


# -- the wrong connection
