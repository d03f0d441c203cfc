"""Clients that say nothing, too little, or do not listen: they are cut off in time, and others do not wait for them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.broker import Accepted, Demand
from penstock.clock import ManualClock
from penstock.coordinator import WorkerInfo
from penstock.message import Message, pack
from penstock.protocol import calls
from penstock.protocol.frames import frame
from penstock.protocol.replies import Blocked, Published, Refused, Stepped, Value
from penstock.protocol.requests import CallRequest, Hello, Ping, Pong, PublishRequest, StepRequest
from penstock.queue import Queue
from penstock.server import broker as broker_module
from penstock.server import crew
from penstock.server import peer as peer_module
from penstock.server import space as space_module
from tests.unit.server.house import ADA, PASSWORD, Client, House

SOON = 12.0
"""By the time of the broker's loop, which a test puts ahead."""
WORKER, HEIR = "w" * 32, "h" * 32
BODY = pack(Message(1, "t", b"1" * 100))


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "TICK", 0.05)
    for name in ("HELLO_PATIENCE", "FRAME_PATIENCE", "STALLED", "LINGER"):
        monkeypatch.setattr(peer_module, name, SOON)
    monkeypatch.setattr(crew, "GRACE", 0.1)


def wait_for(happened: Callable[[], object]) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < 20
        time.sleep(0.005)


def deaf(house: House) -> Client:
    """A client whose system keeps little of what it is sent, and that will not read it."""
    return Client(house.port, Hello(1, 1, "deaf", user=ADA, secret=PASSWORD), window=4096)


def peers(house: House, client: str) -> int:
    return house.do(lambda: sum(session.client == client for session in house.broker.sessions.values()))


def heard(house: House, bytes_sent: int) -> None:
    """Until one that has not signed in has been heard so far."""
    strangers = lambda: [peer.received for peer in house.broker.peers if peer.session is None]  # noqa: E731
    wait_for(lambda: house.do(lambda: bytes_sent in strangers()))


def test_who_says_nothing_is_cut_off(house: House) -> None:
    with house.client() as other, socket.create_connection(("127.0.0.1", house.port), timeout=20) as silent:
        heard(house, 0)
        house.pass_seconds(SOON / 2)
        assert house.do(lambda: len(house.broker.peers)) == 2
        house.pass_seconds(SOON)
        assert b"no hello" in silent.recv(4096)
        assert silent.recv(4096) == b""
        other.send(CallRequest(1, "depth", calls.raw(("default", ""))))
        other.read_until(Value)


def test_a_hello_byte_by_byte_is_cut_off(house: House) -> None:
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as slow:
        hello = frame(Hello(1, 1, "x" * 50, user=ADA, secret=PASSWORD))
        for number in range(3):
            slow.sendall(hello[number : number + 1])
            heard(house, number + 1)
            house.pass_seconds(SOON / 4)
        house.pass_seconds(SOON / 2)
        assert b"no hello" in slow.recv(4096)


def test_a_frame_byte_by_byte_is_cut_off(house: House) -> None:
    with house.client() as slow:
        [peer] = house.broker.peers
        for byte in frame(PublishRequest(1, 0, False, 1.0, [[BODY]]))[:3]:
            before = peer.received
            slow.socket.sendall(bytes([byte]))
            wait_for(lambda before=before: peer.received > before)
            house.pass_seconds(SOON / 4)
        house.pass_seconds(SOON / 2)
        assert "not complete" in slow.read_until(Refused).text


def test_a_frame_that_the_broker_did_not_read_is_not_the_clients_fault(house: House) -> None:
    engine = house.engine()
    engine.run(engine.inspect.declare([Queue("default", max_length=1, overflow="block")]))
    with house.client() as client:
        request = frame(PublishRequest(3, 0, False, 30.0, [[BODY]]))
        client.send(PublishRequest(1, 0, False, 30.0, [[BODY]]))
        client.socket.sendall(frame(PublishRequest(2, 0, False, 30.0, [[BODY]])) + request[:50])
        client.read_until(Blocked)
        house.pass_seconds(SOON * 2)
        engine.run(engine.inspect.declare([Queue("default", max_length=9)]))
        client.read_until(Published)
        house.pass_seconds(SOON / 2)
        client.socket.sendall(request[50:])
        while client.read_until(Published).number != 3:
            pass
    engine.close()


def test_who_looks_just_when_it_is_read_again_does_not_blame_it_for_the_time_before(house: House) -> None:
    with house.client() as client:
        request = frame(PublishRequest(1, 0, False, 30.0, [[BODY]]))
        [peer] = house.broker.peers
        before = peer.received
        client.socket.sendall(request[:50])
        wait_for(lambda: peer.received > before)
        house.do(lambda: peer.pause("a test"))
        house.pass_seconds(SOON * 2)

        def look() -> None:
            peer.resume("a test")
            peer.tick(house.time(), 10.0)

        house.do(look)
        client.socket.sendall(request[50:])
        client.read_until(Published)


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
        worker.send(StepRequest(9, 0, False, [], [], Demand(("default",), 1, WORKER)))
        house.pass_seconds(SOON / 2)
        assert peers(house, "deaf") == 1
        house.pass_seconds(SOON)
        got = 0
        while got < 8:
            house.pass_seconds(1.0)  # its lease is over soon
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
        with contextlib.suppress(TimeoutError):
            flood.socket.sendall(ask)
        [peer] = [peer for peer, session in house.broker.sessions.items() if session.client == "deaf"]
        wait_for(lambda: peer.stalled is not None)
        for _ in range(20):
            engine.run(engine.broker.depth("default"))
            assert 0 < house.do(lambda: peer.unread) < 32 << 20
        house.pass_seconds(SOON + 1)
        wait_for(lambda: not peers(house, "deaf"))
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
        house.pass_seconds(SOON + 1)
        wait_for(lambda: peer not in house.broker.peers)
    engine.close()


def test_one_clients_heap_of_requests_does_not_hold_up_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = house.engine()
    engine.run(engine.inspect.declare([Queue(f"q{number}") for number in range(300)]))
    ask = b"".join(frame(CallRequest(n, "queues", calls.raw((None,)))) for n in range(300))
    sent: list[type] = []
    bare = peer_module.Peer.send
    monkeypatch.setattr(peer_module.Peer, "send", lambda peer, reply: (sent.append(type(reply)), bare(peer, reply)))
    with house.client() as heavy, house.client() as light:

        def both() -> None:
            """The broker finds all of it there at once."""
            heavy.socket.sendall(ask)
            light.send(Ping())

        house.do(both)
        assert isinstance(light.read(), Pong)
        for _ in range(300):
            heavy.read_until(Value)
    assert sent.index(Pong) < 200, "between the answers of the other"
    engine.close()


def test_what_was_parked_is_not_served_after_its_right_is_gone(house: House) -> None:
    engine = house.engine()
    with house.client() as worker:
        worker.send(StepRequest(1, 0, False, [], [], Demand(("default",), 1, WORKER, wait=1.0)))
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


def test_a_machine_that_went_without_a_word_loses_what_it_held_when_its_lease_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is open still, and nothing comes from it, not even the answer to a ping."""
    clock = ManualClock(time.time())
    monkeypatch.setattr(space_module, "SystemClock", lambda: clock)
    with House(tmp_path / "data") as house:
        engine = house.engine()
        engine.run(engine.broker.publish([Message(1, "t", b"1")], 5.0))
        with house.client() as gone:
            info = WorkerInfo(WORKER, "gone", "there", 1, 1, ("default",), "p", 1.0)
            gone.send(CallRequest(1, "join", calls.raw((info,))))
            gone.send(StepRequest(2, 0, False, [], [], Demand(("default",), 1, WORKER, lease=60.0)))
            assert gone.read_until(Stepped).claims
            for _ in range(4):  # three heartbeats are 30 s
                assert peers(house, "bare") == 1
                engine.run(engine.broker.depth("default"))  # which is heard
                house.pass_seconds(8)
            wait_for(lambda: not peers(house, "bare"))
            assert not engine.run(engine.broker.step([], Demand(("default",), 1, HEIR))).deliveries, "it may come back"
            clock.advance(61)
            house.pass_seconds(1)
            [again] = engine.run(engine.broker.step([], Demand(("default",), 1, HEIR))).deliveries
            assert again.message is not None
        engine.close()
