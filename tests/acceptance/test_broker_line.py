"""Callers that block read their connection to the broker themselves: many at once, cut short, forked, and cut off."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.blocking import bounded
from penstock.broker import Accepted, Demand
from penstock.engines.server import ServerEngine, open_engine
from penstock.errors import BrokerError
from penstock.message import VERSION, Message
from tests.servers import Server, broker_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with broker_server(tmp_path, durability="process") as found:
        yield found


@pytest.fixture
def engine(server: Server) -> Iterator[ServerEngine]:
    opened = open_engine(server.url)
    yield opened
    opened.close()


def message(body: bytes = b"[]") -> Message:
    return Message(VERSION, "task", body, queue="line")


def publish(engine: ServerEngine, count: int = 1) -> None:
    answers = engine.run(engine.broker.publish([message() for _ in range(count)], 10.0))
    assert all(isinstance(answer, Accepted) for answer in answers)


def test_many_threads_share_a_connection(engine: ServerEngine) -> None:
    def work() -> None:
        for _ in range(50):
            publish(engine)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert engine.run(engine.broker.depth("line")) == 16 * 50


def test_one_waits_for_work_while_another_calls(engine: ServerEngine) -> None:
    found = []

    def wait() -> None:
        found.append(engine.run(engine.broker.step((), Demand(("line",), 1, "w", wait=20.0))))

    waiting = threading.Thread(target=wait)
    waiting.start()
    for _ in range(20):
        assert engine.run(engine.broker.depth("line")) == 0
    publish(engine)
    waiting.join(10.0)
    assert not waiting.is_alive()
    assert len(found[0].deliveries) == 1


def test_a_waiting_step_is_cut_short(engine: ServerEngine) -> None:
    began = time.monotonic()
    threading.Timer(0.2, engine.broker.interrupt).start()
    step = engine.run(engine.broker.step((), Demand(("line",), 1, "w", wait=30.0)))
    assert not step.deliveries
    assert 0.1 < time.monotonic() - began < 5.0


def test_a_forked_child_has_a_connection_of_its_own(engine: ServerEngine) -> None:
    publish(engine)
    child = os.fork()
    if not child:
        code = 1
        try:
            publish(engine, 2)
            code = 0
        finally:
            os._exit(code)
    for _ in range(5):
        publish(engine)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert engine.run(engine.broker.depth("line")) == 8


def test_who_calls_goes_on_when_the_broker_is_back(server: Server, engine: ServerEngine) -> None:
    publish(engine)
    server.stop(signal.SIGKILL)
    started = threading.Timer(0.5, server.start)
    started.start()
    publish(engine)  # waits for it, within its time-out
    started.join()
    assert engine.run(engine.broker.depth("line")) == 2


def test_an_idle_connection_answers_heartbeats(tmp_path: Path) -> None:
    with broker_server(tmp_path, "--heartbeat", "1", durability="process") as server:
        opened = open_engine(server.url)
        publish(opened)
        wire = opened.line.wire
        time.sleep(4.5)  # more than three heartbeats
        publish(opened)
        assert opened.line.wire is wire
        opened.close()
        assert "cut off" not in server.log.read_text()


def test_who_has_other_duties_does_not_wait_for_long(server: Server, engine: ServerEngine) -> None:
    publish(engine)
    server.freeze()
    began = time.monotonic()
    with pytest.raises(BrokerError):
        engine.run(bounded(engine.coordinator.reap(), 0.5))
    assert time.monotonic() - began < 3.0
    server.thaw()
