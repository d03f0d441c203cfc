"""Clients that say nothing, too little, or do not listen: they are cut off in time, and others do not wait for them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from penstock.broker import Accepted, Demand
from penstock.coordinator import WorkerInfo
from penstock.message import Message, pack
from penstock.protocol import calls
from penstock.protocol.frames import frame
from penstock.protocol.replies import Blocked, Published, Refused, Stepped, Value
from penstock.protocol.requests import CallRequest, Hello, Ping, PublishRequest, StepRequest
from penstock.queue import Queue
from penstock.server import broker as broker_module
from penstock.server import crew
from penstock.server import peer as peer_module
from tests.unit.server.house import ADA, PASSWORD, Client, House

SOON = 0.4
WORKER, HEIR = "w" * 32, "h" * 32
BODY = pack(Message(1, "t", b"1" * 100))


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "TICK", 0.05)
    for name in ("HELLO_PATIENCE", "FRAME_PATIENCE", "STALLED", "LINGER"):
        monkeypatch.setattr(peer_module, name, SOON)
    monkeypatch.setattr(crew, "GRACE", 0.1)


def wait_for(happened: Callable[[], object], seconds: float = 5.0) -> float:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds
        time.sleep(0.005)
    return time.monotonic() - began


def deaf(house: House) -> Client:
    """A client whose system keeps little of what it is sent, and that will not read it."""
    return Client(house.port, Hello(1, 1, "deaf", user=ADA, secret=PASSWORD), window=4096)


def peers(house: House, client: str) -> int:
    return house.do(lambda: sum(session.client == client for session in house.broker.sessions.values()))


def test_who_says_nothing_is_cut_off(house: House) -> None:
    with house.client() as other, socket.create_connection(("127.0.0.1", house.port), timeout=5) as silent:
        began = time.monotonic()
        assert b"no hello" in silent.recv(4096)
        assert silent.recv(4096) == b""
        assert SOON <= time.monotonic() - began < 2
        other.send(CallRequest(1, "depth", calls.raw(("default", ""))))
        other.read_until(Value)


def test_a_hello_byte_by_byte_is_cut_off(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.port), timeout=5) as slow:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in frame(Hello(1, 1, "x" * 50, user=ADA, secret=PASSWORD)):
                slow.sendall(bytes([byte]))
                time.sleep(0.03)
        assert time.monotonic() - began < 2
        assert b"no hello" in slow.recv(4096)


def test_a_frame_byte_by_byte_is_cut_off(house: House) -> None:
    with house.client() as slow:
        with contextlib.suppress(OSError):
            for byte in frame(PublishRequest(1, 0, False, 1.0, [[BODY]])):
                slow.socket.sendall(bytes([byte]))
                time.sleep(0.03)
        assert "not complete" in slow.read_until(Refused).text


def test_a_frame_that_the_broker_did_not_read_is_not_the_clients_fault(house: House) -> None:
    engine = house.engine()
    engine.run(engine.inspect.declare([Queue("default", max_length=1, overflow="block")]))
    with house.client() as client:
        request = frame(PublishRequest(3, 0, False, 30.0, [[BODY]]))
        client.send(PublishRequest(1, 0, False, 30.0, [[BODY]]))
        client.socket.sendall(frame(PublishRequest(2, 0, False, 30.0, [[BODY]])) + request[:50])
        client.read_until(Blocked)
        time.sleep(SOON * 2)
        engine.run(engine.inspect.declare([Queue("default", max_length=9)]))
        client.read_until(Published)
        time.sleep(0.15)  # some ticks
        client.socket.sendall(request[50:])
        while client.read_until(Published).number != 3:
            pass
    engine.close()


def test_a_worker_that_does_not_read_its_deliveries_is_cut_off_and_others_get_them(house: House) -> None:
    engine = house.engine()
    for _ in range(8):
        engine.run(engine.broker.publish([Message(1, "t", b"1" * (2 << 20))], 5.0))
    with deaf(house) as worker:
        info = WorkerInfo(WORKER, "deaf", "here", 1, 1, ("default",), "p", 1.0)
        worker.send(CallRequest(1, "join", calls.raw((info,))))
        for number in range(2, 6):
            worker.send(StepRequest(number, 0, False, [], [], Demand(("default",), 1, WORKER)))
        wait_for(lambda: house.do(lambda: any(one.peer.stalled is not None for one in house.broker.sessions.values())))
        stalled = time.monotonic()
        worker.send(StepRequest(9, 0, False, [], [], Demand(("default",), 1, WORKER)))
        got = 0
        while got < 8:
            assert time.monotonic() - stalled < 5
            got += len(engine.run(engine.broker.step([], Demand(("default",), 8, HEIR, wait=1.0))).deliveries)
        assert peers(house, "deaf") == 0
    engine.close()


def test_a_flood_of_requests_whose_answers_are_not_read_is_bounded(house: House) -> None:
    """What is asked for costs more than asking: it is not worked off when nobody listens."""
    engine = house.engine()
    for _ in range(3):
        engine.run(engine.broker.publish([Message(1, "t", b"1" * (2 << 20))], 5.0))
    ask = b"".join(frame(CallRequest(n, "peek", calls.raw(("default", 3, "")))) for n in range(2_000))
    with deaf(house) as flood:
        flood.socket.settimeout(0.2)
        most = slowest = 0.0
        with contextlib.suppress(TimeoutError):
            flood.socket.sendall(ask)
        while peers(house, "deaf"):
            most = max(most, house.do(lambda: max((one.unread for one in house.broker.peers), default=0)))
            began = time.monotonic()
            engine.run(engine.broker.depth("default"))
            slowest = max(slowest, time.monotonic() - began)
            assert slowest < 1.0
        assert 0 < most < 32 << 20
    engine.close()


def test_who_is_cut_off_and_does_not_read_why_is_gone_after_a_while(house: House) -> None:
    """Less than what counts as not reading: nothing else would end this connection."""
    engine = house.engine()
    engine.run(engine.broker.publish([Message(1, "t", b"1" * (800 << 10))], 5.0))
    with deaf(house) as client:
        peer = next(peer for peer, session in house.broker.sessions.items() if session.client == "deaf")
        for number in range(20):
            before = peer.sent
            client.send(CallRequest(number, "peek", calls.raw(("default", 1, ""))))
            wait_for(lambda before=before: peer.sent > before)
            if peer.unread:
                break
        assert peer.stalled is None
        house.do(lambda: peer.refuse("unavailable", "a test"))
        assert wait_for(lambda: peer not in house.broker.peers) < 3
    engine.close()


def test_one_clients_heap_of_requests_does_not_hold_up_the_others(house: House) -> None:
    engine = house.engine()
    engine.run(engine.inspect.declare([Queue(f"q{number}") for number in range(300)]))
    ask = b"".join(frame(CallRequest(n, "queues", calls.raw((None,)))) for n in range(300))
    with house.client() as heavy, house.client() as light:
        heavy.socket.sendall(ask)
        time.sleep(0.05)
        began = time.monotonic()
        light.send(Ping())
        light.read()
        assert time.monotonic() - began < 0.5
        for _ in range(300):
            heavy.read_until(Value)
    engine.close()


def test_what_was_parked_is_not_served_after_its_right_is_gone(house: House) -> None:
    engine = house.engine()
    with house.client() as worker:
        worker.send(StepRequest(1, 0, False, [], [], Demand(("default",), 1, WORKER, wait=0.6)))
        wait_for(lambda: house.do(lambda: house.broker.space("/").turns.parked))
        with house.client() as admin:
            arguments = (
                "users permit",
                b'{"name": "ada", "namespace": "*", "configure": ".*", "write": ".*", "read": "other"}',
            )
            admin.send(CallRequest(1, "administer", calls.raw(arguments)))
            admin.read_until(Value)
        [answer] = engine.run(engine.broker.publish([Message(1, "t", b"1")], 5.0))
        assert isinstance(answer, Accepted)
        assert not worker.read_until(Stepped).claims
    engine.close()


def test_a_machine_that_went_without_a_word_loses_what_it_held_when_its_lease_ends(house: House) -> None:
    """Its connection is open still, and nothing comes from it, not even the answer to a ping."""
    house.do(lambda: house.broker.change({"heartbeat": 1.0}))
    engine = house.engine()
    engine.run(engine.broker.publish([Message(1, "t", b"1")], 5.0))
    with house.client() as gone:
        info = WorkerInfo(WORKER, "gone", "there", 1, 1, ("default",), "p", 1.0)
        gone.send(CallRequest(1, "join", calls.raw((info,))))
        gone.send(StepRequest(2, 0, False, [], [], Demand(("default",), 1, WORKER, lease=4.5)))
        assert gone.read_until(Stepped).claims
        began = time.monotonic()
        wait_for(lambda: not peers(house, "bare"), 6)
        assert 2.5 < time.monotonic() - began < 5
        assert not engine.run(engine.broker.step([], Demand(("default",), 1, HEIR))).deliveries, "it may come back"
        [again] = engine.run(engine.broker.step([], Demand(("default",), 1, HEIR, wait=5.0))).deliveries
        assert again.message is not None
        assert time.monotonic() - began < 7
    engine.close()
