"""Publishing inside a caller's transaction, up to the connection: pure. What the server makes of it is in
tests/transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from penstock import ConfigError, Queue
from penstock.broker import Accepted, Conflict, Duplicate, Full
from penstock.engines.postgres.settings import read_settings
from penstock.engines.postgres.statements import Route, route
from penstock.engines.postgres.transactional import PostgresTransactional
from penstock.message import Limit, Message, Unique
from penstock.public_ids import PublicIds

IDS = PublicIds(b"secret")
NO_DETAIL = (None, None, None, None, None, None, None)


@pytest.fixture
def learnt() -> list[set[Route]]:
    return []


@pytest.fixture
def how(learnt: list[set[Route]]) -> PostgresTransactional:
    async def learn(messages: Sequence[Message]) -> None:
        learnt.append(set(map(route, messages)))

    settings = read_settings(
        "postgresql://me:password@db/shop?schema=work",
        queues=[Queue("small", max_length=5, max_bytes=500)],
        durability="power",
        result_expires=1,
        result_max_bytes=1,
    )
    return PostgresTransactional(settings, IDS, learn)


def message(**fields: object) -> Message:
    return Message(1, "t", b"[]", **fields)  # type: ignore[arg-type]  # any of its fields


def test_parameters_are_of_types_that_every_driver_knows(how: PostgresTransactional) -> None:
    minted = IDS.make(77)
    guards = (Unique("k", ttl=9.0),)
    batch = [message(queue="small"), message(id="mine", eta=5.0), message(id=minted, queue="small", guards=guards)]
    statement = how.enlist(batch)
    assert " FROM work.enlist($1::text, $2::text, $3::bytea)" in statement.numbered()
    check, envelope, bodies = statement.params
    assert check == IDS.fingerprint
    assert isinstance(envelope, str) and isinstance(bodies, bytes)
    found = json.loads(envelope)
    assert found["routes"] == [["", "small", 5, "", 5, 500, None], ["", "default", 5, "", 1_000_000, 1 << 30, None]]
    assert found["lanes"] == [0, 1, 0]
    assert sum(found["sizes"]) == len(bodies)
    assert found["ids"] == [None, None, 77]
    assert found["names"] == [None, "mine", None]
    assert found["dues"] == [None, 5.0, None]
    assert found["guards"] == {"3": [["unique", "", "k", 9.0, "done", "skip"]]}


def test_answers_are_those_of_any_publish(how: PostgresTransactional) -> None:
    batch = [message(), message(id="mine"), message(id=IDS.make(77)), message(), message()]
    rows = [
        *((n, "accepted", 100 + n, *NO_DETAIL) for n in range(1, 6)),
        (4, "conflict", 9, "k", *NO_DETAIL[1:]),
        (5, "duplicate", 8, *NO_DETAIL),
    ]
    assert how.answers(batch, rows) == [
        Accepted(101),
        Accepted("mine"),
        Accepted(IDS.make(77)),
        Conflict("k", 9),
        Duplicate(8),
    ]


def test_full_is_the_answer_to_all(how: PostgresTransactional) -> None:
    rows = [(1, "accepted", 5, *NO_DETAIL), (0, "full", None, None, 5, 5, "tasks", 1, 0, 1.0)]
    [answer] = how.answers([message(queue="small")], rows)
    assert isinstance(answer, Full)
    assert (answer.queue, answer.depth, answer.limit, answer.unit) == ("small", 5, 5, "tasks")
    assert 0.9 <= answer.retry_after <= 1.1


def test_lanes_are_made_once_and_before(how: PostgresTransactional, learnt: list[set[Route]]) -> None:
    batch = [message(), message(queue="small"), message()]
    before = how.preparation(batch)
    assert before is not None
    asyncio.run(before)
    assert learnt == [{Route("", "default", 5, ""), Route("", "small", 5, "")}]
    assert how.preparation(batch) is None
    again = how.preparation([message(priority=9)])
    assert again is not None
    again.close()


def test_what_messages_say_of_their_limits_is_told_before_and_once(
    how: PostgresTransactional, learnt: list[set[Route]]
) -> None:
    for rate in (1.0, 1.0, 2.0):
        before = how.preparation([message(guards=(Limit("k", rate),))])
        if before is not None:
            asyncio.run(before)
    assert learnt == [{Route("", "default", 5, "", "k")}] * 2
    envelope = json.loads(str(how.enlist([message(guards=(Limit("k", 2.0),))]).params[1]))
    assert envelope["routes"] == [["", "default", 5, "", 1_000_000, 1 << 30, ["k", 2.0, 1.0, None, 1.0, False]]]
    assert envelope["guards"] is None


def test_another_schema_is_told_without_secrets(how: PostgresTransactional) -> None:
    with pytest.raises(ConfigError, match=r"another database than the broker postgresql://me@db:5432/shop") as error:
        how.answers([message()], [(0, "stranger", None, *NO_DETAIL)])
    assert "password" not in str(error.value)


def test_codes_that_mean_a_wrong_connection(how: PostgresTransactional) -> None:
    assert "there is no schema 'work'" in (how.refused("3F000") or "")
    assert "there is no schema" in (how.refused("42883") or "")
    assert "GRANT USAGE ON SCHEMA work" in (how.refused("42501") or "")
    assert how.refused("40001") is None
