"""What one worker settles wrongly is its own trouble: nobody else misses a result."""

from __future__ import annotations

import math
import threading
import time

import pytest

from penstock.broker import Accepted, Demand
from penstock.delivery import ACK, RetryAt
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.protocol.replies import Failed, Stepped
from penstock.protocol.requests import Ended, FinishedLease, StepRequest
from tests.unit.server.house import Client, House

WORKER = "w" * 32
NOW = time.time()


def take(client: Client, count: int) -> tuple[int, list[int]]:
    client.send(StepRequest(1, 0, False, [], [], Demand(("default",), count, WORKER)))
    [claim] = client.read_until(Stepped).claims
    return claim.token, [row for row, _, _ in claim.rows]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token, row: StepRequest(2, 0, False, [FinishedLease(token, b'[["SUCCESS",1.0,0,0,"\xff",1,null]]')], []),
        lambda token, row: StepRequest(2, 0, False, [FinishedLease(token, b"no run")], []),
        lambda token, row: _end(token, row, Outcome(State.SUCCESS, b'"\xff"', NOW)),
        lambda token, row: _end(token, row, Outcome(State.SUCCESS, b'1],["SUCCESS"', NOW)),
        lambda token, row: _end(token, row, Outcome(State.SUCCESS, b"1", math.nan)),
        lambda token, row: _end(token, row, Outcome(State.PENDING, b"1", NOW)),
        lambda token, row: StepRequest(2, 0, False, [], [Ended(token, row, RetryAt(math.nan))]),
        lambda token, row: StepRequest(2, 0, False, [], [Ended(token, row, RetryAt(math.inf))]),
    ],
    ids=["text", "no run", "value's text", "value", "time", "state", "retry never", "retry at the end of time"],
)
def test_an_end_that_cannot_be_kept_is_refused_and_others_hear_of_theirs(house: House, spoilt: object) -> None:
    engine = house.engine()
    try:
        [answer] = engine.run(engine.broker.publish([Message(1, "t", b"1")], 5.0))
        engine.run(engine.broker.publish([Message(1, "t", b"2")], 5.0))
        assert isinstance(answer, Accepted)
        heard = threading.Event()
        engine.backend.subscribe([answer.key], lambda reports: heard.set())
        with house.client() as client:
            token, [row] = take(client, 1)
            other, [last] = take(client, 1)
            client.send(spoilt(other, last))  # type: ignore[operator]  # one of the functions above
            assert client.read_until(Failed).number == 2
            client.send(_end(token, row, Outcome(State.SUCCESS, b'"good"', NOW)))
            client.read_until(Stepped)
            assert heard.wait(5)
            client.send(_end(other, last, Outcome(State.SUCCESS, b"1", NOW)))
            assert client.read_until(Stepped).ended == [True], "its lease is as it was"
    finally:
        engine.close()


def _end(token: int, row: int, outcome: Outcome) -> StepRequest:
    return StepRequest(2, 0, False, [], [Ended(token, row, ACK, outcome)])
