"""Purging and revoking what was put back leaves no trace in the counts."""

from pathlib import Path

import pytest

from penstock.broker import Demand
from penstock.delivery import RELEASE, Settlement
from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.message import Message
from penstock.queue import QueueInfo


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(f"sqlite:///{tmp_path}/queue.db")


def put_back(engine: Engine, count: int) -> list[str]:
    """Tasks that a worker took and handed back."""
    engine.run(engine.broker.publish([Message(1, "t", b"[]") for _ in range(count)], 5))
    step = engine.run(engine.broker.step([], Demand(("default",), count, "0" * 32)))
    engine.run(engine.broker.step([Settlement(one.receipt, RELEASE) for one in step.deliveries], None))
    return [engine.broker.public_id(one.key) for one in step.deliveries]


def info(engine: Engine) -> QueueInfo:
    [found] = engine.run(engine.inspect.queues())
    return found


def test_purge(engine: Engine) -> None:
    put_back(engine, 5)
    assert engine.run(engine.inspect.purge("default")) == 5
    assert (info(engine).depth, info(engine).ready, info(engine).leased) == (0, 0, 0)
    assert engine.run(engine.inspect.purge("default")) == 0
    assert not engine.run(engine.broker.step([], Demand(("default",), 5, "0" * 32))).deliveries


@pytest.mark.parametrize("which", [0, 2, 4])
def test_revoke(engine: Engine, which: int) -> None:
    ids = put_back(engine, 5)
    engine.run(engine.coordinator.revoke([ids[which]]))
    assert (info(engine).depth, info(engine).ready, info(engine).leased) == (4, 4, 0)
    left = engine.run(engine.broker.step([], Demand(("default",), 5, "0" * 32))).deliveries
    left += engine.run(engine.broker.step([], Demand(("default",), 5, "0" * 32))).deliveries
    assert sorted(engine.broker.public_id(one.key) for one in left) == sorted(set(ids) - {ids[which]})
