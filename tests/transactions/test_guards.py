"""Guards inside a caller's transaction: limits hold, and a unique key changes hands with the commit, or not at all."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from penstock import Penstock, State, Unique
from penstock.broker import Demand
from penstock.delivery import ACK, Delivery, Settlement
from penstock.effects import ReleaseKey
from tests.transactions.shop import depth
from tests.transactions.test_beside_others import wait_until_blocked

NEWEST = Unique("ship:{order}", on_conflict="replace")
ONLY = Unique("ship:{order}", on_conflict="cancel")


def take(app: Penstock, limit: int = 100) -> list[Delivery]:
    return list(app.engine.run(app.broker.step([], Demand(("default",), limit, "w" * 32))).deliveries)


def test_a_limit_holds_for_what_is_published_in_a_transaction(
    app: Penstock, connection: psycopg.Connection[Any]
) -> None:
    limited = app.task(name="limited", concurrency_limit=2)(lambda: None)
    with app.batch(connection=connection):
        for _ in range(5):
            limited.delay()
    other = app.task(name="costly", rate_limit="1/h", rate_burst=10, cost=4.0)(lambda: None)
    for _ in range(3):
        other.apply_async(connection=connection)
    assert take(app) == []
    connection.commit()
    names = [delivery.message.task for delivery in take(app) if delivery.message]
    assert sorted(names) == ["costly"] * 2 + ["limited"] * 2


def test_claims_go_on_beside_an_open_transaction_of_the_same_limit(
    app: Penstock, connection: psycopg.Connection[Any]
) -> None:
    """Also where that says something else of the limit than those before it: claims look at what it is."""
    app.task(name="limited", concurrency_limit=1, limit_key="one")(lambda: None).delay()
    more = app.task(name="more", concurrency_limit=2, limit_key="one")(lambda: None)
    more.apply_async(connection=connection)
    more.delay()
    assert len(take(app)) == 2
    connection.rollback()
    assert depth(app) == 2


def test_the_newest_replaces_one_that_waits_at_the_commit(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    first = ship.apply_async((1,), unique=NEWEST)
    lost = ship.apply_async((1,), unique=NEWEST, connection=connection)
    assert first.state is State.PENDING
    connection.rollback()
    assert (first.state, lost.state, depth(app)) == (State.PENDING, State.UNKNOWN, 1)
    heir = ship.apply_async((1,), unique=NEWEST, connection=connection)
    connection.commit()
    assert (first.state, heir.state, depth(app)) == (State.REVOKED, State.PENDING, 1)
    assert [app.broker.public_id(delivery.key) for delivery in take(app)] == [heir.id]


def test_a_rolled_back_replacement_is_claimed_again(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    first = ship.apply_async((1,), unique=NEWEST)
    ship.apply_async((1,), unique=NEWEST, connection=connection)
    assert take(app) == [], "it may be replaced"
    connection.rollback()
    assert [app.broker.public_id(delivery.key) for delivery in take(app)] == [first.id]


def test_the_holder_that_runs_is_cancelled_at_the_commit(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    ship.apply_async((1,), unique=ONLY)
    [running] = take(app)
    heir = ship.apply_async((1,), unique=ONLY, connection=connection)
    held = [app.engine.run(app.broker.extend([running.receipt], 30.0))]
    connection.commit()
    held.append(app.engine.run(app.broker.extend([running.receipt], 30.0)))
    assert [type(lease).__name__ for [lease] in held] == ["Held", "Cancelled"]
    assert heir.state is State.PENDING


def test_two_transactions_replace_one_after_the_other(
    app: Penstock, url: str, connection: psycopg.Connection[Any]
) -> None:
    ship = app.tasks["ship"]
    first = ship.apply_async((1,), unique=NEWEST)
    second = ship.apply_async((1,), unique=NEWEST, connection=connection)
    found: list[Any] = []

    def another() -> None:
        with psycopg.connect(url) as other:
            other.execute("INSERT INTO orders VALUES (1)")
            found.append(ship.apply_async((1,), unique=NEWEST, connection=other))

    thread = threading.Thread(target=another)
    thread.start()
    wait_until_blocked(url)
    connection.commit()
    thread.join(10)
    assert [one.state for one in (first, second, found[0])] == [State.REVOKED, State.REVOKED, State.PENDING]
    assert depth(app) == 1


@pytest.mark.parametrize("commits", [True, False])
def test_the_end_of_the_holder_does_not_wait_for_who_takes_its_key(
    app: Penstock, connection: psycopg.Connection[Any], commits: bool
) -> None:
    """And the key is free afterwards, also when that is rolled back."""
    ship = app.tasks["ship"]
    ship.apply_async((1,), unique=NEWEST)
    [running] = take(app)
    heir = ship.apply_async((1,), unique=NEWEST, connection=connection)
    started = time.monotonic()
    settlement = Settlement(running.receipt, ACK, effects=(ReleaseKey("ship:1"),))
    app.engine.run(app.broker.step([settlement], None))
    app.engine.run(app.engine.coordinator.reap())
    assert time.monotonic() - started < 2
    connection.commit() if commits else connection.rollback()
    again = ship.apply_async((1,), unique="ship:{order}")
    assert (again.id == heir.id) is commits
    assert depth(app) == 1
