"""Results that are awaited by chosen ids: every end is told, and ids that there are not cost the others little."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock.broker import Demand
from penstock.delivery import ACK, Dead, Settlement
from penstock.engines.server import ServerEngine
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.protocol.requests import WatchRequest
from tests.unit.server.house import House

WORKER = "w" * 32
UNKNOWN = 10_000


@pytest.fixture
def engine(house: House) -> Iterator[ServerEngine]:
    engine = house.engine()
    yield engine
    engine.close()


def publish(engine: ServerEngine, name: str) -> None:
    engine.run(engine.broker.publish([Message(1, "t", b"1", id=name)], 5.0))


def end(engine: ServerEngine, *, dead: bool = False) -> None:
    [one] = engine.run(engine.broker.step([], Demand(("default",), 1, WORKER))).deliveries
    outcome = None if dead else Outcome(State.SUCCESS, b"1", time.time())
    engine.run(engine.broker.step([Settlement(one.receipt, Dead("no") if dead else ACK, outcome)], None))


def settled(engine: ServerEngine) -> None:
    publish(engine, "mine")
    end(engine)


def died(engine: ServerEngine) -> None:
    publish(engine, "mine")
    end(engine, dead=True)


def revoked_before_it_came(engine: ServerEngine) -> None:
    engine.run(engine.coordinator.revoke(["mine"]))


def revoked_while_it_waited(engine: ServerEngine) -> None:
    publish(engine, "mine")
    engine.run(engine.coordinator.revoke(["mine"]))


def stored_from_elsewhere(engine: ServerEngine) -> None:
    engine.run(engine.backend.store([("mine", Outcome(State.SUCCESS, b"1", time.time()))]))


ENDS = (settled, died, revoked_before_it_came, revoked_while_it_waited, stored_from_elsewhere)


@pytest.mark.parametrize("happens", ENDS)
@pytest.mark.parametrize("early", [True, False], ids=["awaited before", "awaited after"])
def test_every_end_is_told(engine: ServerEngine, happens: Callable[[ServerEngine], None], early: bool) -> None:
    heard = threading.Event()
    if early:
        engine.backend.subscribe(["mine"], lambda reports: heard.set())
        engine.run(engine.broker.depth("default"))
        assert not heard.wait(0.1)
    happens(engine)
    if not early:
        engine.backend.subscribe(["mine"], lambda reports: heard.set())
    assert heard.wait(5)


def test_ids_that_there_are_not_do_not_slow_the_others_down(house: House, engine: ServerEngine) -> None:
    with house.client() as client:
        client.send(WatchRequest([f"unknown-{number}" for number in range(UNKNOWN)]))
        house.do(lambda: None)
        heard = threading.Event()
        engine.backend.subscribe(["mine"], lambda reports: heard.set())
        began = time.monotonic()
        settled(engine)
        assert heard.wait(5), "among so many, too"
        for number in range(20):
            publish(engine, f"other-{number}")
            end(engine)
        assert (time.monotonic() - began) / 21 < 0.06
