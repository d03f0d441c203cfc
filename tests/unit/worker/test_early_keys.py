"""An early acknowledgement is the task's one settlement: with it goes the unique key, on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from penstock.broker import Accepted, Conflict, Demand
from penstock.commit import FusedCommitter
from penstock.delivery import RetryAt, Settlement
from penstock.engine import Engine
from penstock.engines import memory, sqlite
from penstock.message import VERSION, Message, Unique
from penstock.queue import Queue
from penstock.worker.early import Early
from penstock.worker.slot import Batch, Slot

UNIQUE = Message(VERSION, "once", b"[]", guards=(Unique("k"),))


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine: Engine = memory.open_engine()
    if request.param == "sqlite":
        engine = sqlite.open_engine(f"sqlite:///{tmp_path}/queue.db")
    yield engine
    engine.close()


def test_the_key_is_free_once_the_task_is_claimed(engine: Engine) -> None:
    early = Early(engine, engine, FusedCommitter(engine.broker))
    slot = cast(Slot, SimpleNamespace(batch=Batch()))
    engine.run(engine.broker.publish([UNIQUE], 5.0))
    [delivery] = engine.run(engine.broker.step([], Demand(("default",), 1, "worker"))).deliveries
    [answer] = engine.run(engine.broker.publish([UNIQUE], 5.0))
    assert isinstance(answer, Conflict)
    assert early.claim(slot, delivery)
    [answer] = engine.run(engine.broker.publish([UNIQUE], 5.0))
    assert isinstance(answer, Accepted)


def test_a_retry_is_admitted_into_a_full_queue(engine: Engine) -> None:
    early = Early(engine, engine, FusedCommitter(engine.broker))
    message = Message(VERSION, "once", b"[]")
    engine.run(engine.inspect.declare([Queue("default", max_length=1)]))
    engine.run(engine.broker.publish([message], 5.0))
    slot = cast(Slot, SimpleNamespace(request=SimpleNamespace(id="again", key="again")))
    early.conclude(slot, Settlement((1, 1), RetryAt(0.0, message)))
    assert engine.run(engine.broker.depth("default")) == 2
