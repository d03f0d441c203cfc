"""What RabbitMQ, its network or this process may do in the middle of work, and that nothing accepted is lost by it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pika import spec

from penstock.broker import DONE, LEASE_LOST, Accepted, Demand, Full, Unknown
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement
from penstock.engines.rabbitmq import consumers, open_engine, posting, progress, publisher, topology
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.engines.rabbitmq.lane import Lane
from penstock.errors import BrokerUnavailable, ConfigError
from penstock.message import Message
from tests.absent import not_tested
from tests.acceptance.sites import rabbitmqctl
from tests.servers import NotInstalled, Server, rabbitmq_server

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("rabbitmq_breaks")]

SETTLED = 1.0
"""Seconds after which a quorum queue survives the death of 3.10.8's only node: see `tests.servers.rabbitmq_node`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of our own: these tests kill it, and raise its alarms."""
    try:
        with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as server:
            yield server
    except NotInstalled as missing:
        not_tested(missing)


@pytest.fixture
def engine(server: Server) -> Iterator[RabbitEngine]:
    engine = open_engine(server.url)
    yield engine
    engine.close()


def name() -> str:
    return f"breaks-{uuid.uuid4().hex[:8]}"


def publish(engine: RabbitEngine, queue: str, count: int, **fields: object) -> list[object]:
    batch = [Message(1, "task", b"%d" % number, queue=queue, **fields) for number in range(count)]  # type: ignore[arg-type]  # fields of the message
    return list(engine.run(engine.broker.publish(batch, 30)))


def take(engine: RabbitEngine, queue: str, limit: int = 1000, wait: float = 15.0) -> list[Delivery]:
    return list(engine.run(engine.broker.step([], Demand((queue,), limit, "worker", wait=wait))).deliveries)


def drain(engine: RabbitEngine, queue: str, count: int) -> set[str]:
    """The ids of all that comes, acknowledged, until `count` have come or nothing does for a while."""
    found: set[str] = set()
    while len(found) < count and (taken := take(engine, queue)):
        settled = engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in taken], None)).settled
        assert set(settled) == {DONE}
        found |= {str(one.key) for one in taken}
    return found


def accepted(answers: list[object]) -> set[str]:
    return {str(answer.key) for answer in answers if isinstance(answer, Accepted)}


@pytest.mark.slow
def test_a_killed_server_comes_back_with_all_it_confirmed(server: Server, engine: RabbitEngine) -> None:
    queue = name()
    ids = accepted(publish(engine, queue, 500))
    assert len(ids) == 500
    [held] = take(engine, queue, limit=1)
    time.sleep(SETTLED)
    server.stop(signal.SIGKILL)
    server.start()
    started = time.monotonic()
    assert engine.run(engine.broker.step([Settlement(held.receipt, ACK)], None)).settled == [LEASE_LOST]
    assert drain(engine, queue, 500) == ids
    assert time.monotonic() - started < 15
    assert len(accepted(publish(engine, queue, 1))) == 1


def test_a_connection_cut_in_the_middle_of_a_publish(engine: RabbitEngine) -> None:
    """What was confirmed is there; what was not is unknown, and is published again under the same ids."""
    queue = name()
    publish(engine, queue, 1)
    batch = [Message(1, "task", b"x", queue=queue, id=f"{queue}-{number}") for number in range(1000)]
    publisher = engine.run(engine.core.post.link.get(5))
    confirm, heard = publisher._on_confirm, []

    def cut_after_the_first(tag: int, multiple: bool, accepted: bool) -> None:
        confirm(tag, multiple, accepted)
        if not heard:
            heard.append(tag)
            engine.core.post.link.cut()

    assert publisher._channel is not None
    publisher._channel.confirmed = cut_after_the_first
    answers = engine.run(engine.broker.publish(batch, 10))
    unknown = [answer.id for answer in answers if isinstance(answer, Unknown)]
    assert unknown
    assert len(unknown) < 1000
    again = [message for message in batch if message.id in set(unknown)]
    assert all(isinstance(answer, Accepted) for answer in engine.run(engine.broker.publish(again, 10)))
    assert drain(engine, queue, 2000) >= {str(message.id) for message in batch}


def test_a_publisher_waits_for_the_server_until_its_deadline(server: Server) -> None:
    engine = open_engine(server.url)
    connecting = Connection.open

    async def refused(*arguments: object) -> Connection:
        raise BrokerUnavailable("nobody there")

    Connection.open = refused  # type: ignore[method-assign, assignment]  # the server is gone
    try:
        engine.core.post.link.cut()
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="nobody there"):
            engine.run(engine.broker.publish([Message(1, "task", b"", queue=name())], 0.5))
        assert 0.4 < time.monotonic() - started < 3
    finally:
        Connection.open = connecting  # type: ignore[method-assign]
        engine.close()


@pytest.mark.slow
def test_a_memory_alarm_stops_publishing_and_nothing_else(server: Server, engine: RabbitEngine) -> None:
    queue = name()
    ids = accepted(publish(engine, queue, 10))
    rabbitmqctl(server, "set_vm_memory_high_watermark", "0.00001")
    try:
        batch = [Message(1, "task", b"late", queue=queue)]
        [unknown] = engine.run(engine.broker.publish(batch, 1))  # sent before the server says that it is blocked
        assert isinstance(unknown, Unknown)
        assert "memory" in unknown.why
        assert "vm_memory_high_watermark" in unknown.why
        with pytest.raises(BrokerUnavailable, match=r"alarm.*memory"):
            engine.run(engine.broker.publish(batch, 0.5))
        assert drain(engine, queue, 10) == ids
        waiting: list[object] = []
        thread = threading.Thread(target=lambda: waiting.extend(engine.run(engine.broker.publish(batch, 30))))
        thread.start()
    finally:
        rabbitmqctl(server, "set_vm_memory_high_watermark", "0.4")
    thread.join(30)
    assert len(accepted(waiting)) == 1


@pytest.mark.slow
def test_holding_the_interpreter_beyond_the_heartbeat_loses_leases_and_no_task(server: Server) -> None:
    queue = name()
    engine, other = open_engine(f"{server.url}?heartbeat=1"), open_engine(server.url)
    ids = accepted(publish(engine, queue, 3))
    info = WorkerInfo(uuid.uuid4().hex, "stuck", "here", os.getpid(), 1, (queue,), "solo", 0.0)
    engine.run(engine.coordinator.join(info))
    held = take(engine, queue, limit=3)
    assert len(held) == 3
    engine.broker.record_start(0, held[1].receipt)
    ctypes.PyDLL(None).sleep(6)  # as an extension that does not release the lock
    back = take(other, queue, limit=3)
    while len(back) < 3 and (more := take(other, queue, limit=3)):
        back += more
    assert {str(one.key) for one in back} == ids
    assert all(one.redelivered for one in back)
    # It would hold up its next worker as well, and for ever; its neighbours only waited.
    assert sum(one.attempts for one in back) == sum(one.attempts for one in back if one.key == held[1].key) == 1
    settled = engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in held], None)).settled
    assert settled == [LEASE_LOST] * 3
    settled = other.run(other.broker.step([Settlement(one.receipt, ACK) for one in back], None)).settled
    assert settled == [DONE] * 3
    engine.close()
    other.close()


VICTIM = """
import os, sys
from penstock.broker import Demand
from penstock.coordinator import WorkerInfo
from penstock.engines.rabbitmq import consumers, open_engine
url, queue, worker, starts = sys.argv[1:]
engine = open_engine(url)
engine.run(engine.coordinator.join(WorkerInfo(worker, "victim", "here", os.getpid(), 4, (queue,), "solo", 0.0)))
taken = []
while len(taken) < 3:
    taken += engine.run(engine.broker.step([], Demand((queue,), 3 - len(taken), worker, wait=10))).deliveries
for one in taken:
    if one.message.body == b"0":
        assert one.attempts == int(starts), one
        engine.broker.record_start(0, one.receipt)
os.kill(os.getpid(), 9)
"""


def test_what_kills_its_worker_is_charged_and_its_neighbours_are_not(
    server: Server, engine: RabbitEngine, tmp_path: Path
) -> None:
    queue = name()
    publish(engine, queue, 3)
    for starts in range(3):
        arguments = [server.url, queue, uuid.uuid4().hex, str(starts)]
        victim = subprocess.run([sys.executable, "-c", VICTIM, *arguments], timeout=60, capture_output=True)
        assert victim.returncode == -signal.SIGKILL, victim.stderr.decode()
    counts: dict[bytes, int] = {}
    while len(counts) < 3:
        for one in take(engine, queue):
            assert one.message is not None
            counts[one.message.body] = one.message.attempts
    assert counts == {b"0": 3, b"1": 0, b"2": 0}


def test_delayed_tasks_do_not_move_to_a_worker(engine: RabbitEngine) -> None:
    queue = name()
    for _ in range(20):
        assert len(accepted(publish(engine, queue, 1000, eta=time.time() + 3600))) == 1000
    publish(engine, queue, 1)
    [delivery] = take(engine, queue, limit=10)
    assert delivery.message is not None
    assert delivery.message.eta is None
    ours = engine.core.consumers
    assert ours is not None
    assert [len(lane.arrived) for lane in ours.lanes.values()] == [0]


def test_nothing_is_hoarded_while_a_long_task_runs(engine: RabbitEngine, server: Server) -> None:
    """What came in advance goes back when nobody asks for it."""
    queue = name()
    publish(engine, queue, 200)
    assert len(take(engine, queue, limit=100)) <= 100
    other = open_engine(server.url)
    rest: list[Delivery] = []
    while len(rest) < 100 and (more := take(other, queue, wait=3)):
        rest += more
    other.close()
    assert len(rest) >= 100


def test_an_idle_worker_says_next_to_nothing(engine: RabbitEngine) -> None:
    queue = name()
    info = WorkerInfo(uuid.uuid4().hex, "idle", "here", os.getpid(), 1, (queue,), "solo", 0.0)
    engine.run(engine.coordinator.join(info))
    take(engine, queue, wait=0.1)
    written: list[bytes] = []
    for link in (engine.core.consuming, engine.core.post.link):
        connection = link.connection
        assert connection is not None
        write = connection.write
        connection.write = lambda data, write=write: (written.append(data), write(data))[1]  # type: ignore[method-assign, misc]  # counted
    for _ in range(20):
        take(engine, queue, wait=0.1)
    assert len(written) <= 4


def test_a_consumer_that_is_not_served_connects_anew_and_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumers, "HEALTH", 0.2)
    engine, queue = open_engine(server.url), name()
    take(engine, queue, wait=0.05)
    sick = engine.core.consumers
    assert sick is not None
    for lane in sick.lanes.values():
        lane.channel.deliver = lambda content: None
        engine.run(forgotten(lane))
    ids = accepted(publish(engine, queue, 3))
    assert drain(engine, queue, 3) == ids
    assert "connecting anew" in caplog.text
    engine.close()


async def forgotten(lane: Lane) -> None:
    """The server does not know of this consumer any more, and nobody said so."""
    await lane.channel.call(spec.Basic.Cancel(lane.consumer), spec.Basic.CancelOk)


def test_many_slots_share_a_consumer_whatever_each_of_them_wants(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Each changes what is asked for while others wait for an answer: the server must not stumble over that."""
    engine, queue = open_engine(server.url), name()
    ids = accepted(publish(engine, queue, 800))
    found: list[str] = []

    def slot(limit: int) -> None:
        while taken := take(engine, queue, limit=limit, wait=1.5):
            found.extend(str(one.key) for one in taken)
            settled = [Settlement(one.receipt, ACK) for one in taken]
            engine.run(engine.broker.step(settled, None if len(found) % 7 == 0 else Demand((queue,), 0, "worker")))

    slots = [threading.Thread(target=slot, args=(limit,)) for limit in (1, 1, 1, 2, 3, 20)]
    for thread in slots:
        thread.start()
    for thread in slots:
        thread.join(60)
    engine.close()
    assert set(found) == ids
    assert "connecting again" not in caplog.text


def test_a_publish_whose_connection_breaks_before_it_is_sent_goes_on_with_the_next(
    engine: RabbitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, cuts = name(), 0
    publish(engine, queue, 1)
    parcel = engine.core.post.parcel

    async def cut_first(*arguments: object, **more: object) -> object:
        nonlocal cuts
        made = await parcel(*arguments, **more)  # type: ignore[arg-type]  # as they came
        if cuts < 2:
            cuts += 1
            engine.core.post.link.cut()
        return made

    monkeypatch.setattr(engine.core.post, "parcel", cut_first)
    ids = accepted(publish(engine, queue, 5))
    assert (len(ids), cuts) == (5, 2)
    assert len(drain(engine, queue, 6)) == 6


def test_a_publisher_whose_confirms_stay_away_connects_anew_and_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", (0.3, 0.3))
    engine, queue = open_engine(server.url), name()
    publish(engine, queue, 1)
    sick = engine.run(engine.core.post.link.get(5))
    assert sick._channel is not None
    sick._channel.confirmed = lambda tag, multiple, accepted: None
    batch = [Message(1, "task", b"x", queue=queue, id=f"{queue}-{number}") for number in range(3)]
    started = time.monotonic()
    answers = engine.run(engine.broker.publish(batch, 30))
    assert 0.2 < time.monotonic() - started < 3
    assert answers == [Unknown(str(message.id)) for message in batch]
    assert len(accepted(list(engine.run(engine.broker.publish(batch, 5))))) == 3
    assert engine.run(engine.core.post.link.get(5)) is not sick
    assert "confirmed nothing for 0.3 s" in caplog.text
    assert "connecting again" in caplog.text
    engine.close()


def test_a_publisher_that_is_confirmed_slowly_is_left_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", (0.4, 0.4))
    engine, queue = open_engine(server.url), name()
    publish(engine, queue, 1)
    slow = engine.run(engine.core.post.link.get(5))
    assert slow._channel is not None
    confirm, loop = slow._on_confirm, slow.connection._loop
    held: list[int] = []

    def one_by_one(tag: int, multiple: bool, accepted: bool) -> None:
        while len(held) < tag:
            held.append(tag)
            loop.call_later(0.2 * len(held), confirm, len(held) + 1, False, True)

    slow._channel.confirmed = one_by_one
    slow._on_confirm(1, True, True)
    assert len(accepted(publish(engine, queue, 5))) == 5
    assert engine.run(engine.core.post.link.get(5)) is slow
    engine.close()


def test_a_publisher_whose_calls_are_not_answered_connects_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "ROUND_TRIP", 0.3)
    engine, queue = open_engine(server.url), name()
    publish(engine, queue, 1)
    sick = engine.run(engine.core.post.link.get(5))
    assert sick.topology._channel is not None
    sick.topology._channel._answer = lambda answer: None  # type: ignore[method-assign]  # nothing comes
    assert len(accepted(publish(engine, name(), 2))) == 2
    assert sick.connection.error is not None
    engine.close()


def test_what_is_refused_during_an_election_is_sent_again(server: Server) -> None:
    """Not full: the queue holds next to nothing."""
    engine, queue = open_engine(server.url), name()
    publish(engine, queue, 1)
    sending = engine.run(engine.core.post.link.get(5))
    assert sending._channel is not None
    confirm, refusals = sending._on_confirm, 0

    def refuse_once(tag: int, multiple: bool, accepted: bool) -> None:
        nonlocal refusals
        refusals += 1
        confirm(tag, multiple, refusals > 1)

    sending._channel.confirmed = refuse_once
    assert len(accepted(publish(engine, queue, 1))) == 1
    assert refusals == 2
    assert engine.run(engine.core.post.link.get(5)) is sending
    engine.close()


def test_who_refuses_for_ever_is_left_and_the_reason_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    engine, queue = open_engine(server.url), name()
    publish(engine, queue, 1)
    sick = engine.run(engine.core.post.link.get(5))
    assert sick._channel is not None
    confirm = sick._on_confirm
    sick._channel.confirmed = lambda tag, multiple, accepted: confirm(tag, multiple, False)
    batch = [Message(1, "task", b"x", queue=queue, id=f"{queue}-x")]
    started = time.monotonic()
    [answer] = engine.run(engine.broker.publish(batch, 5))
    assert time.monotonic() - started < 2
    assert isinstance(answer, Unknown)
    assert "no majority" in answer.why
    assert len(accepted(list(engine.run(engine.broker.publish(batch, 5))))) == 1
    assert engine.run(engine.core.post.link.get(5)) is not sick
    assert "refuses what its queue has room for" in caplog.text
    engine.close()


def test_a_queue_at_the_hard_limit_is_full(engine: RabbitEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = name()
    monkeypatch.setattr(topology, "HARD_LENGTH", 3)
    monkeypatch.setattr(posting, "HARD_LENGTH", 3)
    publish(engine, queue, 3)
    answers: list[object] = []
    while not any(isinstance(answer, Full) for answer in answers):  # a few more fit before it says so
        answers += publish(engine, queue, 1)
    assert len(answers) < 200
    [full] = [answer for answer in answers if isinstance(answer, Full)]
    assert (full.limit, full.depth >= 3) == (3, True)


def test_a_user_who_may_not_publish_is_told_which_right_is_missing(server: Server) -> None:
    rabbitmqctl(server, "add_user", "reader", "secret")
    rabbitmqctl(server, "set_permissions", "reader", ".*", "^breaks-", ".*")
    reader = open_engine(server.url.replace("guest:guest", "reader:secret"))
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(ConfigError, match="grant write on"):
            publish(reader, name(), 2)
    reader.close()
    assert time.monotonic() - begun < 10
