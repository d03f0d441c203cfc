"""A task that was acknowledged before it ran may be published again under its own id."""

from pathlib import Path

import pytest

from penstock.broker import Accepted, Answer, Demand, Duplicate
from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.message import Message
from penstock.outcome import Outcome, State

WANT = Demand(("default",), 10, "0" * 32)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock) -> Engine:
    return open_engine(f"sqlite:///{tmp_path}/queue.db", clock=clock)


def publish(engine: Engine, message: Message) -> Answer:
    return engine.run(engine.broker.publish([message], 5))[0]


def take_and_ack(engine: Engine) -> str:
    """The public id of a new task, which is then acknowledged without an outcome."""
    publish(engine, Message(1, "t", b"[]"))
    [delivery] = engine.run(engine.broker.step([], WANT)).deliveries
    engine.run(engine.broker.step([Settlement(delivery.receipt, ACK)], None))
    return engine.broker.public_id(delivery.key)


@pytest.mark.parametrize("delay", [None, 5.0])
def test_same_id_again(engine: Engine, clock: ManualClock, delay: float | None) -> None:
    task_id = take_and_ack(engine)
    eta = None if delay is None else clock.time() + delay
    assert publish(engine, Message(1, "t", b"[1]", id=task_id, eta=eta)) == Accepted(task_id)
    assert engine.run(engine.backend.fetch([task_id]))[0].state is State.PENDING
    clock.advance(delay or 0.0)
    [delivery] = engine.run(engine.broker.step([], WANT)).deliveries
    assert (engine.broker.public_id(delivery.key), delivery.message and delivery.message.body) == (task_id, b"[1]")
    engine.run(
        engine.broker.step([Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, b"1", clock.time()))], None)
    )
    assert engine.run(engine.backend.fetch([task_id]))[0].state is State.SUCCESS
    assert engine.run(engine.broker.depth("default")) == 0


def test_while_it_is_there_it_is_a_repeat(engine: Engine) -> None:
    task_id = take_and_ack(engine)
    again = Message(1, "t", b"[1]", id=task_id)
    publish(engine, again)
    assert publish(engine, again) == Duplicate(task_id)


def test_in_a_hole_it_is_a_repeat(engine: Engine) -> None:
    first, second = (publish(engine, Message(1, "t", b"[]")) for _ in range(2))
    assert isinstance(first, Accepted) and isinstance(second, Accepted)
    task_id = engine.broker.public_id(first.key)
    engine.run(engine.coordinator.revoke([task_id]))
    engine.run(engine.backend.forget([task_id]))
    assert publish(engine, Message(1, "t", b"[]", id=task_id)) == Duplicate(task_id)
    delivered = engine.run(engine.broker.step([], WANT)).deliveries
    assert [delivery.key for delivery in delivered] == [second.key]
