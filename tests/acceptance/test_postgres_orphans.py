"""Claims whose answer was lost with its connection, in a worker that lives on: what they hold comes back."""

import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from penstock.broker import Demand
from penstock.delivery import ACK, RELEASE, Delivery, Settlement
from penstock.engines.postgres import open_engine
from penstock.engines.postgres.engine import PostgresEngine
from penstock.errors import BrokerError, OutcomeUnknown
from penstock.message import VERSION, Message

WANT = Demand(("orphans",), 1, "0" * 31 + "2", lease=600.0)


@pytest.fixture
def engine(postgres_url: str) -> Iterator[PostgresEngine]:
    engine = open_engine(postgres_url)
    assert isinstance(engine, PostgresEngine)
    yield engine
    engine.close()


def receive(engine: PostgresEngine) -> Delivery:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for delivery in engine.run(engine.broker.step([], WANT)).deliveries:
            return delivery
    raise AssertionError("nothing came")


@pytest.mark.parametrize("done", [True, False])
def test_what_was_claimed_with_a_commit_of_unknown_outcome(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    engine.run(
        engine.broker.publish([Message(VERSION, "t", b"[]", id=f"{done} {n}", queue="orphans") for n in "ab"], 5)
    )
    first = receive(engine)
    commit = asyncpg.transaction.Transaction.commit
    lost = [True]

    async def lose(transaction: Any) -> None:
        if lost.pop() if lost else False:
            await (commit(transaction) if done else transaction.rollback())
            raise ConnectionResetError("cut, with the answer")
        await commit(transaction)

    monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", lose)
    settlement = Settlement(first.receipt, RELEASE)
    with pytest.raises(OutcomeUnknown):
        engine.run(engine.broker.step([settlement], WANT))
    engine.run(engine.broker.step([settlement], None))
    found = [receive(engine), receive(engine)]
    assert {one.key for one in found} == {f"{done} a", f"{done} b"}
    engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in found], None))


def test_a_schema_that_is_somebody_elses_is_an_error_of_ours(engine: PostgresEngine, postgres_url: str) -> None:
    async def make(connection: Any) -> None:
        await connection.execute("CREATE SCHEMA elses; CREATE TABLE elses.queue (x int)")

    async def call() -> None:
        await engine.core.call(make)

    engine.run(call())
    with pytest.raises(BrokerError, match="queue"):
        open_engine(f"{postgres_url}?schema=elses")
