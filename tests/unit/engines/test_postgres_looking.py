"""What is told of a task that ends while it is looked for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from penstock.engines.postgres.looking import Lookup
from penstock.engines.postgres.naming import BUCKET
from penstock.engines.postgres.outcomes import pack_outcomes
from penstock.message import VERSION, Message, pack
from penstock.outcome import Outcome, State
from penstock.public_ids import PublicIds

NUMBER = 7 << BUCKET
FAILED = Outcome(State.FAILURE, b"why", 1.0)


class Server:
    """Answers the first look as if nothing had ended; then it has."""

    def __init__(self, places: list[tuple[Any, ...]], stored: bool) -> None:
        self._places = places
        packed = pack_outcomes([(NUMBER, "t", FAILED)])
        ended = [(packed.buckets[0], packed.masks[0], "w", packed.values[0], 1.0, "1", "2")]
        self._looks = iter([[], ended if stored else []])

    async def fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        if ".result " in sql:
            return next(self._looks)
        return self._places if "'leased'" in sql else []


DEAD = [("dead", NUMBER, 0, pack(Message(VERSION, "t", b"", queue="q")), "")]


@pytest.mark.parametrize(
    ("places", "stored", "state", "outcome"),
    [
        ([], True, State.FAILURE, FAILED),
        (DEAD, True, State.FAILURE, FAILED),
        (DEAD, False, State.FAILURE, None),
        ([], False, State.UNKNOWN, None),
    ],
    ids=["ended", "failed", "dead without an error", "gone"],
)
def test_what_ends_between_two_looks_has_its_outcome(
    places: list[tuple[Any, ...]], stored: bool, state: State, outcome: Outcome | None
) -> None:
    server = Server(places, stored)
    [report] = asyncio.run(Lookup("penstock", PublicIds(b"k" * 16)).reports(cast(Any, server), [NUMBER]))
    assert report.state is state
    assert (report.outcome and report.outcome.value) == (outcome and outcome.value)
