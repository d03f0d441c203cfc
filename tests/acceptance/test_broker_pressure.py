"""Back pressure on the wire: senders of a full queue are not read, and a faster worker gets more."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.broker import Accepted, Demand, Full
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Settlement
from penstock.engines.server import ServerEngine, open_engine
from penstock.message import Message, pack
from penstock.outcome import Outcome, State
from penstock.protocol.frames import frame
from penstock.protocol.replies import Blocked, Published, Unblocked
from penstock.protocol.requests import Hello, PublishRequest
from penstock.queue import Queue
from tests.acceptance.processes import wait_until
from tests.servers import Server, broker_server
from tests.servers.broker_node import PASSWORD, USER
from tests.unit.server.house import Client

Tell = Callable[[str], None]

SILENT = 10_000
SPEED = 4
SECONDS = 6.0


@pytest.fixture
def queue() -> str:
    return f"pressure-{secrets.token_hex(4)}"


@pytest.fixture
def open_one(broker: Server) -> Iterator[Callable[[], ServerEngine]]:
    engines = []

    def make() -> ServerEngine:
        engines.append(open_engine(broker.url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def bare(broker: Server) -> Client:
    return Client(broker.port, Hello(1, 1, "bare", user=USER, secret=PASSWORD))


def declare(engine: ServerEngine, queue: str, length: int) -> None:
    engine.run(engine.inspect.declare([Queue(queue, max_length=length, overflow="block")]))


def message(queue: str, body: bytes = b"1") -> Message:
    return Message(1, "t", body, queue=queue)


def worker_of(engine: ServerEngine, queue: str) -> str:
    worker = secrets.token_hex(16)
    now = time.time()
    info = WorkerInfo(worker, "w", "here", os.getpid(), 1, (queue,), "p", now, now)
    engine.run(engine.coordinator.join(info))
    return worker


def test_the_senders_of_a_full_queue_are_not_read_and_go_on_in_order(
    broker: Server, open_one: Callable[[], ServerEngine], queue: str, measured: Tell
) -> None:
    engine = open_one()
    declare(engine, queue, 1)
    engine.run(engine.broker.publish([message(queue, b"first")], 5.0))
    filler = b"x" * (256 << 10)
    with bare(broker) as sender:
        request = lambda n: PublishRequest(n, 0, False, 30.0, [[pack(message(queue, b"%d " % n + filler))]])  # noqa: E731
        sender.send(request(1))
        assert sender.read_until(Blocked).queue == queue
        # Nobody reads it: what it sends piles up on its own side, and then it cannot send.
        sender.socket.settimeout(0.5)
        sent = 1
        stuck = b""
        while not stuck:
            data = frame(request(sent + 1))
            view = memoryview(data)
            with contextlib.suppress(TimeoutError):
                while view:
                    view = view[sender.socket.send(view) :]
            if view:
                stuck = bytes(view)
            sent += 1
            assert sent < 200, "all of it was read"
        piled = sent * len(filler)
        # Others, and other queues, go on.
        [elsewhere] = engine.run(engine.broker.publish([message(queue + "-other")], 5.0))
        assert isinstance(elsewhere, Accepted)
        declare(engine, queue, 1_000)
        sender.socket.settimeout(10)
        sender.socket.sendall(stuck)
        answered = 0
        while answered < sent:
            reply = sender.read_until(Published)
            answered += 1
            assert reply.number == answered, "in their order"
    assert engine.run(engine.broker.depth(queue)) == sent + 1
    shown = engine.run(engine.inspect.peek(queue, 10))
    assert [one.message.body.split()[0] for one in shown if one.message][:4] == [b"first", b"1", b"2", b"3"]
    measured(f"{piled >> 20} MiB piled up on the way")


def test_when_the_time_of_a_blocked_publish_is_over_it_is_refused(
    broker: Server, open_one: Callable[[], ServerEngine], queue: str
) -> None:
    engine = open_one()
    declare(engine, queue, 1)
    engine.run(engine.broker.publish([message(queue)], 5.0))
    began = time.monotonic()
    [answer] = engine.run(engine.broker.publish([message(queue)], 0.5))
    assert isinstance(answer, Full), "full, and not unknown"
    assert 0.3 < time.monotonic() - began < 2.0
    with bare(broker) as sender:
        sender.send(PublishRequest(1, 0, False, 0.3, [[pack(message(queue))]]))
        sender.read_until(Blocked)
        sender.read_until(Unblocked)
        sender.read_until(Published)


def test_a_blocked_publisher_is_let_go_by_the_work_of_others(
    open_one: Callable[[], ServerEngine], queue: str, measured: Tell
) -> None:
    """A hundred tasks through a queue of five; none is refused, none is lost."""
    sender, engine = open_one(), open_one()
    declare(engine, queue, 5)
    answers = []

    def send() -> None:
        for number in range(100):
            answers.extend(sender.run(sender.broker.publish([message(queue, b"%d" % number)], 20.0)))

    thread = threading.Thread(target=send)
    thread.start()
    worker, done = worker_of(engine, queue), []
    while len(done) < 100:
        step = engine.run(engine.broker.step([], Demand((queue,), 2, worker, wait=5.0)))
        done += [one.message.body for one in step.deliveries if one.message]
        engine.run(engine.broker.step([end(one.receipt) for one in step.deliveries], None))
    thread.join()
    assert all(isinstance(one, Accepted) for one in answers)
    assert done == [b"%d" % number for number in range(100)]


def end(receipt: tuple[object, ...]) -> Settlement:
    return Settlement(receipt, ACK, Outcome(State.SUCCESS, b"1", time.time()))


def test_a_worker_that_publishes_into_its_own_full_queue_does_not_wait_for_itself(
    open_one: Callable[[], ServerEngine], queue: str
) -> None:
    engine = open_one()
    declare(engine, queue, 1)
    worker = worker_of(engine, queue)
    engine.run(engine.broker.publish([message(queue)], 5.0))
    [delivery] = engine.run(engine.broker.step([], Demand((queue,), 1, worker))).deliveries
    began = time.monotonic()
    [answer] = engine.run(engine.broker.publish([message(queue)], 20.0))
    assert isinstance(answer, Full), "leased tasks count, and only this connection could end them"
    assert time.monotonic() - began < 2.0
    engine.run(engine.broker.step([end(delivery.receipt)], None))
    [answer] = engine.run(engine.broker.publish([message(queue)], 20.0))
    assert isinstance(answer, Accepted)


@pytest.mark.slow
def test_a_worker_that_is_four_times_as_fast_gets_about_four_times_as_much(
    open_one: Callable[[], ServerEngine], queue: str, measured: Tell
) -> None:
    engine = open_one()
    for _ in range(20):
        engine.run(engine.broker.publish([message(queue)] * 500, 5.0))
    counts = {"fast": 0, "slow": 0}
    until = time.monotonic() + SECONDS

    def work(name: str, seconds: float) -> None:
        mine = open_one()
        worker = worker_of(mine, queue)
        settled: list[Settlement] = []
        while time.monotonic() < until:
            step = mine.run(mine.broker.step(settled, Demand((queue,), 5, worker, wait=1.0)))
            settled = [end(one.receipt) for one in step.deliveries]
            counts[name] += len(settled)
            time.sleep(seconds * len(settled))

    threads = [threading.Thread(target=work, args=one) for one in (("fast", 0.04), ("slow", 0.04 * SPEED))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    share = counts["fast"] / counts["slow"]
    measured(f"{counts}: {share:.2f} times as much")
    assert 3.0 <= share <= 4.6


@pytest.mark.slow
def test_ten_thousand_connections_that_say_nothing(tmp_path: Path, measured: Tell) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < SILENT + 500:
        pytest.skip(f"this system lets a process have {hard:,} files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with broker_server(tmp_path) as broker:  # one that has grown for nobody else
        _say_nothing(broker, measured)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _say_nothing(broker: Server, measured: Tell) -> None:
    engine = open_engine(broker.url)
    assert broker.process is not None
    pid = broker.process.pid
    before = memory(pid)
    silent = []
    try:
        began = time.monotonic()
        for _ in range(SILENT):
            silent.append(socket.create_connection(("127.0.0.1", broker.port), timeout=30))
        took = time.monotonic() - began
        wait_until(lambda: files(pid) >= SILENT, 10, "all are taken")
        each = (memory(pid) - before) / SILENT
        waits = []
        for _ in range(50):
            asked = time.monotonic()
            engine.run(engine.broker.depth("default"))
            waits.append(time.monotonic() - asked)
        answer = silent[0].recv(4096)
        assert b"no hello" in answer
        wait_until(lambda: files(pid) < 200, 30, "all are gone", 0.2)
    finally:
        for one in silent:
            one.close()
        engine.close()
    assert each < 40 << 10
    assert sorted(waits)[25] < 0.25
    measured(
        f"{SILENT:,} connected in {took:.1f} s, {each / 1024:.1f} KiB each; others were answered in "
        f"{sorted(waits)[25] * 1000:.1f} ms (p50), {max(waits) * 1000:.0f} ms (max)"
    )


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
