"""The turns of a broker: what was asked twice, what comes due, and a disk that is slow or fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from penstock.broker import Demand, Duplicate, Full, Unknown
from penstock.delivery import ACK
from penstock.message import Limit, Message, pack
from penstock.outcome import Outcome, State
from penstock.protocol import calls
from penstock.protocol.frames import frame
from penstock.protocol.replies import Each, Failed, Published, Span, Stepped, Told, Value
from penstock.protocol.requests import CallRequest, Ended, PublishRequest, StepRequest, WatchRequest
from penstock.queue import Queue
from tests.unit.server.house import House

BODY = pack(Message(1, "t", b"1"))
SESSION = 77


@contextmanager
def slow_disk(house: House) -> Iterator[threading.Event]:
    """Syncs wait until the event is set, and are over at the end."""
    goes_on, db = threading.Event(), house.broker.space("/").store.db
    bare = db.sync

    def sync() -> None:
        goes_on.wait(60)
        bare()

    db.sync = sync  # type: ignore[method-assign]
    try:
        yield goes_on
    finally:
        goes_on.set()
        db.sync = bare  # type: ignore[method-assign]


def depth(house: House) -> int:
    with house.client() as client:
        client.send(CallRequest(1, "depth", calls.raw(("default", ""))))
        value = client.read_until(Value).value
    found: int = calls.VERBS["depth"].read_answer(value)
    return found


def publish(number: int, mark: int, *, again: bool = False, timeout: float = 60.0) -> PublishRequest:
    return PublishRequest(number, mark, again, timeout, [[BODY]])


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_what_is_asked_again_while_it_is_under_way_is_done_once(house: House) -> None:
    with slow_disk(house) as goes_on, house.client() as other:
        other.send(publish(1, 0))  # a sync is under way, and what comes now waits for the next turn
        wait_for(lambda: house.do(lambda: house.broker.space("/").turns.idle) is False)
        with house.client(session=SESSION) as first:
            first.send(publish(1, 1))
            wait_for(lambda: any(session.peer.unanswered for session in house.broker.sessions.values()))
            first.reset()
        with house.client(session=SESSION) as second:
            second.send(publish(1, 1, again=True))
            goes_on.set()
            answer = second.read_until(Published)
    assert isinstance(answer.batches[0], Span)
    assert depth(house) == 2


def test_what_is_asked_again_is_not_answered_before_it_is_durable(house: House) -> None:
    with slow_disk(house) as goes_on:
        with house.client(session=SESSION) as first:
            first.send(publish(1, 1))
            wait_for(lambda: house.do(lambda: house.broker.space("/").turns.idle) is False)
            first.reset()
        with house.client(session=SESSION) as second:
            second.send(publish(1, 1, again=True))
            second.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                second.read_until(Published)
            goes_on.set()
            second.socket.settimeout(5)
            second.read_until(Published)
    assert depth(house) == 1


def test_an_unanswered_publish_is_recognised_by_the_ids_that_it_was_given_while_it_is_under_way(house: House) -> None:
    engine = house.engine()
    try:
        with slow_disk(house) as goes_on, house.client() as other:
            other.send(publish(1, 0))
            wait_for(lambda: house.do(lambda: house.broker.space("/").turns.idle) is False)
            answers = engine.run(engine.broker.publish([Message(1, "t", b"1"), Message(1, "t", b"2")], 0.2))
            ids = [answer.id for answer in answers if isinstance(answer, Unknown)]
            assert len(ids) == 2
            threading.Timer(0.3, goes_on.set).start()
            batch = [Message(1, "t", body, id=id) for body, id in zip((b"1", b"2"), ids, strict=True)]
            again = engine.run(engine.broker.publish(batch, 5.0))
        assert all(isinstance(answer, Duplicate) for answer in again)
    finally:
        engine.close()
    assert depth(house) == 3


def test_a_held_publish_of_a_lost_connection_is_not_done_beside_its_repeat(house: House) -> None:
    engine = house.engine()
    try:
        engine.run(engine.inspect.declare([Queue("default", max_length=1, overflow="block")]))
        engine.run(engine.broker.publish([Message(1, "t", b"0")], 5.0))
        with house.client(session=SESSION) as first:
            first.send(publish(1, 1))
            wait_for(lambda: house.do(lambda: len(house.broker.space("/").blocked)))
            first.reset()
        with house.client(session=SESSION) as second:
            second.send(publish(1, 1, again=True))
            wait_for(lambda: house.do(lambda: len(house.broker.space("/").blocked)))
            engine.run(engine.inspect.declare([Queue("default", max_length=9)]))
            second.read_until(Published)
    finally:
        engine.close()
    wait_for(lambda: house.do(lambda: not house.broker.space("/").blocked and house.broker.space("/").turns.idle))
    assert depth(house) == 2


def test_a_timer_that_is_early_is_set_again(house: House) -> None:
    turns = house.broker.space("/").turns
    with house.client() as client:
        client.send(StepRequest(1, 0, False, [], [], Demand(("default",), 1, "w" * 32, wait=20.0)))
        body = pack(Message(1, "t", b"1", eta=time.time() + 0.4))
        client.send(PublishRequest(2, 0, False, 5.0, [[body]]))
        client.read_until(Published)
        house.do(turns._come_due)
        assert client.read_until(Stepped).claims, "not at the end of its wait, with nothing"


def test_who_only_looks_finds_what_has_come_due(house: House) -> None:
    """Nobody waits, so that nobody is woken: a look in vain must not stand for the next ones."""
    with house.client() as client:
        due = time.time() + 0.4
        client.send(PublishRequest(1, 0, False, 5.0, [[pack(Message(1, "t", b"1", eta=due))]]))
        client.read_until(Published)
        for number in range(2, 1000):
            client.send(StepRequest(number, 0, False, [], [], Demand(("default",), 1, "w" * 32)))
            if client.read_until(Stepped).claims:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("never found")
        assert time.time() >= due


def test_who_waits_is_served_when_a_limiter_opens_that_another_has_closed(house: House) -> None:
    """It waited for room first, and then for a time that was not known when it began."""
    limit = Limit("key", rate=1.0, burst=2.0, concurrency=2)
    with house.client() as waits, house.client() as other:
        other.send(PublishRequest(1, 0, False, 5.0, [[pack(Message(1, "t", b"1", guards=(limit,)))] * 3]))
        other.read_until(Published)
        want = Demand(("default",), 5, "v" * 32)
        other.send(StepRequest(2, 0, False, [], [], want))
        claims = other.read_until(Stepped).claims
        assert len(claims) == 2
        waits.send(StepRequest(1, 0, False, [], [], Demand(("default",), 1, "w" * 32, wait=20.0)))
        wait_for(lambda: house.do(lambda: house.broker.space("/").turns.parked))
        ended = [Ended(one.token, row, ACK) for one in claims for row, _, _ in one.rows]
        other.send(StepRequest(3, 0, False, [], ended, want))
        assert not other.read_until(Stepped).claims
        assert waits.read_until(Stepped).claims, "long before the end of its wait"


def break_disk(house: House) -> None:
    def fails(file: int) -> None:
        raise OSError(5, "Input/output error")

    house.broker.space("/").store.db._sync = fails


def test_a_publish_whose_sync_failed_is_unknown(house: House) -> None:
    """It may be there after the restart: "failed" would say that it is not."""
    break_disk(house)
    with house.client() as client:
        client.send(publish(1, 0))
        assert client.read_until(Failed).code == "unknown"
    assert house.broker.broken is not None


def test_a_call_whose_sync_failed_is_not_answered_as_done(house: House) -> None:
    break_disk(house)
    with house.client() as client:
        client.send(CallRequest(1, "put", calls.raw(("key", b"value", None))))
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.read_until(Value)
    assert house.broker.broken is not None


def test_a_sync_that_fails_before_a_look_ends_the_broker(house: House) -> None:
    """The look was put off once, and others have committed again meanwhile."""
    turns = house.broker.space("/").turns

    def look() -> bool:
        turns._unsynced = turns._put_off = True
        return turns._may_look()

    break_disk(house)
    assert not house.do(look)
    assert house.broker.broken is not None


def test_a_result_that_comes_during_a_sync_is_told_after_the_next_one(house: House) -> None:
    db, syncs = house.broker.space("/").store.db, threading.Semaphore(0)
    bare = db.sync

    def sync() -> None:
        syncs.acquire(timeout=10)
        bare()

    outcome = Outcome(State.SUCCESS, b"1", 1.5)
    with house.client() as caller, house.client() as other:
        db.sync = sync  # type: ignore[method-assign]  # of this broker alone
        try:
            caller.socket.sendall(frame(WatchRequest(["mine"])) + frame(publish(1, 0)))  # a look is due from now on
            wait_for(lambda: house.do(lambda: house.broker.space("/").turns.idle) is False)
            other.send(CallRequest(2, "store", calls.raw(([("mine", outcome)],))))
            time.sleep(0.2)  # it is committed, and not answered
            syncs.release()
            caller.read_until(Published)
            caller.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                caller.read_until(Told)
            syncs.release(100)
            caller.socket.settimeout(5)
            assert [one.id for one in caller.read_until(Told).reports] == ["mine"]
        finally:
            syncs.release(100)
            db.sync = bare  # type: ignore[method-assign]


def test_who_is_refused_waits_for_no_sync(house: House) -> None:
    engine = house.engine()
    engine.run(engine.inspect.declare([Queue("default", max_length=1)]))
    engine.run(engine.broker.publish([Message(1, "t", b"0")], 5.0))
    engine.close()
    with slow_disk(house) as goes_on, house.client() as client:
        client.send(publish(1, 0))
        [batch] = client.read_until(Published).batches
        assert not goes_on.is_set()
    assert isinstance(batch, Each)
    assert isinstance(batch.answers[0], Full)
