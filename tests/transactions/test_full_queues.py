"""A full queue that sheds, inside a caller's transaction: room is made with the commit, or not at all."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from penstock import Penstock, State, TaskShed
from penstock.broker import Demand
from penstock.queue import Queue
from tests.transactions.shop import depth

SHEDS = Queue("tiny", max_length=3, overflow="drop-oldest")


@pytest.fixture
def full(app: Penstock) -> list[Any]:
    """The results of what fills the queue."""
    app.engine.run(app.engine.inspect.declare([SHEDS]))
    return [app.tasks["ship"].apply_async((n,), queue="tiny") for n in range(3)]


def test_a_rollback_sheds_nothing(app: Penstock, full: list[Any], connection: psycopg.Connection[Any]) -> None:
    app.tasks["ship"].apply_async((3,), queue="tiny", connection=connection)
    connection.rollback()
    assert [result.state for result in full] == [State.PENDING] * 3
    assert app.engine.run(app.engine.inspect.dead_letters()) == []
    assert depth(app, "tiny") == 3


def test_a_commit_sheds_and_tells(app: Penstock, full: list[Any], connection: psycopg.Connection[Any]) -> None:
    """Until then, claims take the others."""
    new = app.tasks["ship"].apply_async((3,), queue="tiny", connection=connection)
    step = app.engine.run(app.broker.step([], Demand(("tiny",), 1, "w" * 32)))
    assert [app.broker.public_id(delivery.key) for delivery in step.deliveries] == [full[1].id]
    assert full[0].state is State.PENDING
    connection.commit()
    with pytest.raises(TaskShed):
        full[0].get(timeout=5)
    assert (full[2].state, new.state, depth(app, "tiny")) == (State.PENDING, State.PENDING, 3)
