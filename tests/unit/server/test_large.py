"""More than fits into a frame: results, settlements, deliveries and lists."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from penstock.broker import Accepted, Demand, Done
from penstock.delivery import ACK, Dead, Delivery, Settlement
from penstock.engines.server import ServerEngine
from penstock.errors import MessageTooLarge
from penstock.message import Message, pack
from penstock.outcome import Outcome, Report, State
from penstock.protocol.frames import MAX_FRAME
from penstock.protocol.replies import Published, Stepped
from penstock.protocol.requests import PublishRequest, StepRequest
from tests.unit.server.house import House

MEGABYTE = 1 << 20
TASKS = 40
WORKER = "w" * 32


@pytest.fixture
def engine(house: House) -> Iterator[ServerEngine]:
    engine = house.engine()
    yield engine
    engine.close()


def publish(engine: ServerEngine, count: int, size: int = 1) -> list[int]:
    keys = []
    for _ in range(count):
        [answer] = engine.run(engine.broker.publish([Message(1, "t", b"1" * size)], 5.0))
        assert isinstance(answer, Accepted)
        assert isinstance(answer.key, int)
        keys.append(answer.key)
    return keys


def take(engine: ServerEngine, limit: int = 100) -> list[Delivery]:
    return list(engine.run(engine.broker.step([], Demand(("default",), limit, WORKER))).deliveries)


def end(deliveries: Sequence[Delivery], size: int) -> list[Settlement]:
    value = b'"' + b"x" * size + b'"'
    return [Settlement(one.receipt, ACK, Outcome(State.SUCCESS, value, time.time())) for one in deliveries]


def test_a_step_of_more_than_a_frame_is_settled(engine: ServerEngine) -> None:
    publish(engine, TASKS)
    step = engine.run(engine.broker.step(end(take(engine), MEGABYTE), None))
    assert [type(one) for one in step.settled] == [Done] * TASKS


def test_large_results_reach_who_waits_for_them_and_who_asks(house: House, engine: ServerEngine) -> None:
    keys = publish(engine, TASKS)
    heard: list[Report] = []
    all_there = threading.Event()

    def hear(reports: Sequence[Report]) -> None:
        heard.extend(reports)
        if len(heard) == TASKS:
            all_there.set()

    before = engine.backend.subscribe(keys, hear)
    engine.run(engine.broker.step(end(take(engine), MEGABYTE), None))
    assert all_there.wait(20)
    before.close()
    assert all(one.outcome is not None and len(one.outcome.value) == MEGABYTE + 2 for one in heard)
    heard.clear()
    all_there.clear()
    after = engine.backend.subscribe(keys, hear)  # all of them are there already, and are told together
    assert all_there.wait(20)
    after.close()
    fetched = engine.run(engine.backend.fetch(keys))
    assert [one.id for one in fetched] == [engine.broker.public_id(key) for key in keys]
    assert all(one.outcome is not None for one in fetched)


def test_the_connection_lives_through_it(house: House, engine: ServerEngine) -> None:
    engine.run(engine.broker.depth("default"))
    before = set(house.broker.sessions.values())
    keys = publish(engine, TASKS)
    engine.run(engine.broker.step(end(take(engine), MEGABYTE), None))
    engine.run(engine.backend.fetch(keys))
    assert set(house.broker.sessions.values()) == before


def test_a_result_that_is_too_large_is_refused_and_its_neighbour_is_not(engine: ServerEngine) -> None:
    publish(engine, 2)
    large, small = take(engine)
    with pytest.raises(MessageTooLarge):
        engine.run(engine.broker.step(end([large], 9 * MEGABYTE), None))
    [answer] = engine.run(engine.broker.step(end([small], 1), None)).settled
    assert isinstance(answer, Done)


def test_deliveries_fit_into_a_frame_whatever_is_asked_for(house: House) -> None:
    body = pack(Message(1, "t", b"1" * 7 * MEGABYTE))
    with house.client() as client:
        for number in range(4):
            client.send(PublishRequest(number, 0, False, 5.0, [[body]]))
            client.read_until(Published)
        rows = 0
        for number in range(4):
            client.send(StepRequest(9 + number, 0, False, [], [], Demand(("default",), 10, WORKER, max_bytes=1 << 40)))
            claims = client.read_until(Stepped).claims
            rows += sum(len(claim.rows) for claim in claims)
    assert rows == 4


def test_looking_into_a_queue_shows_what_fits(engine: ServerEngine) -> None:
    publish(engine, 5, 3 * MEGABYTE)
    assert len(engine.run(engine.inspect.peek("default", 100))) == 2
    engine.run(engine.broker.step([Settlement(one.receipt, Dead("no")) for one in take(engine)], None))
    assert len(engine.run(engine.inspect.dead_letters("default"))) == 2
    assert len(engine.run(engine.inspect.peek("default", 100))) == 2, "the rest is there still"


def test_a_batch_of_more_than_a_frame_is_refused(engine: ServerEngine) -> None:
    with pytest.raises(MessageTooLarge, match="publish fewer"):
        engine.run(engine.broker.publish([Message(1, "t", b"x" * MEGABYTE)] * (MAX_FRAME // MEGABYTE), 5.0))
