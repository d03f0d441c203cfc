"""What the RabbitMQ spike keeps of the contracts; what RabbitMQ cannot keep fails as expected, each with its reason."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import cast

import pytest

from penstock.broker import Accepted, Full
from penstock.engine import Engine
from penstock.engines.memory.handle import open_engine
from penstock.testing.conformance import AREAS, Check, Kit, run, run_check
from penstock.testing.conformance.worker import Worker
from tests.spikes.loop_thread import LoopThread
from tests.spikes.rabbitmq_spike import RabbitEngine
from tests.spikes.redis_spike import RedisEngine

CASES = [
    pytest.param(check, id=f"{area}-{check.__name__.removeprefix('check_')}")
    for area in ("publish", "step", "lease", "bound", "priority", "partition", "effects")
    for check in AREAS[area]
]


class RabbitKit(Kit):
    def __init__(self, url: str, thread: LoopThread, results: Engine | None = None) -> None:
        self._address = url, thread
        # What is no engine in full: only what these areas need.
        engine = cast(Engine, RabbitEngine(url, thread))
        super().__init__(engine, unit=0.1, patience=0.2, results=results or open_engine("memory://"))

    def open_second(self) -> Engine:
        return cast(Engine, RabbitEngine(*self._address))

    async def expire(self, worker: Worker) -> None:
        # The connection goes, as a broken network or the server would end it; the next call makes a new one.
        worker.engine.close()


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.mark.parametrize("check", CASES)
def test_rabbitmq(check: Check, rabbitmq_url: str, thread: LoopThread) -> None:
    run_check(check, functools.partial(RabbitKit, rabbitmq_url, thread))


@pytest.mark.parametrize("shared", [True, False], ids=["one loop", "two loops"])
def test_results_in_redis(shared: bool, rabbitmq_url: str, redis_url: str, thread: LoopThread) -> None:
    """Two engines of the network, on one thread's loop or each on its own."""
    other = thread if shared else LoopThread()
    try:
        report = run(lambda: RabbitKit(rabbitmq_url, thread, cast(Engine, RedisEngine(redis_url, other))), ["step"])
    finally:
        if not shared:
            other.close()
    assert report.ok, str(report)


def test_the_servers_own_limit_is_answered_with_full(rabbitmq_url: str, thread: LoopThread) -> None:
    """It is soft, and counts what is ready: 10 admits 11 one by one, and more when they are in flight together."""
    engine = RabbitEngine(rabbitmq_url, thread, hard_limit=10)
    kit = RabbitKit(rabbitmq_url, thread)
    message = kit.message(kit.name("queue"))
    try:
        answers = [engine.run(engine.broker.publish([message], 5.0))[0] for _ in range(30)]
    finally:
        engine.close()
        kit.close()
    accepted = [type(answer) for answer in answers].count(Accepted)
    assert 10 <= accepted < 20
    assert all(isinstance(answer, Full) for answer in answers[accepted:])
