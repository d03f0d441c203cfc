"""A lone message is leased as it comes, if somebody waits for it: everything counts as if it had been claimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.broker import Accepted, Demand, Full
from penstock.clock import ManualClock
from penstock.delivery import ACK, RELEASE, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.joint import Joint, Work
from penstock.engines.sqlite.publishing import Wake, outgoing
from penstock.message import Message, unpack
from penstock.outcome import Outcome, State
from penstock.queue import Queue

WANT = Demand(("default",), 100, "0" * 32)


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    opened = open_engine(f"sqlite:///{tmp_path}/queue.db", clock=ManualClock())
    assert isinstance(opened, SqliteEngine)
    opened.run(opened.inspect.declare([Queue("default", max_length=3), Queue("other")]))
    return opened


def published(engine: SqliteEngine, waiting: Work, *messages: Message) -> tuple[Work, Wake, list[Work]]:
    """What came of one publish while somebody waits."""

    def parked(queues: int) -> Iterator[Work]:
        yield waiting

    work, wake = Work(publish=[outgoing(messages)]), Wake()
    return work, wake, Joint(engine.store).commit([work], wake, parked)


def settle(engine: SqliteEngine, waiting: Work) -> None:
    [claim] = waiting.claims
    outcome = Outcome(State.SUCCESS, b"1", 1.0)
    settlements = [Settlement((claim.token, row), ACK, outcome) for row, _, _ in claim.rows]
    engine.run(engine.broker.step(settlements, None))


def depth(engine: SqliteEngine) -> int | None:
    return engine.run(engine.broker.depth("default"))


def test_it_is_leased_and_counted_and_nobody_else_is_woken(engine: SqliteEngine) -> None:
    for number in range(1, 4):
        waiting = Work(demand=WANT)
        work, wake, served = published(engine, waiting, Message(1, "t", b"%d" % number))
        assert served == [waiting] and not wake.queues
        [claim] = waiting.claims
        [(row, attempts, body)] = claim.rows
        assert work.answers == [[Accepted(row)]] and attempts == 0 and unpack(body).body == b"%d" % number
        assert depth(engine) == 1
        assert engine.run(engine.backend.fetch([row]))[0].state is State.PENDING
        assert not engine.run(engine.broker.step([], WANT)).deliveries
        settle(engine, waiting)
        assert depth(engine) == 0
        assert engine.run(engine.backend.fetch([row]))[0].state is State.SUCCESS


def test_what_is_given_back_comes_before_what_is_new(engine: SqliteEngine) -> None:
    first = Work(demand=WANT)
    published(engine, first, Message(1, "t", b"1"))
    [claim] = first.claims
    engine.run(engine.broker.step([Settlement((claim.token, claim.rows[0][0]), RELEASE)], None))
    second = Work(demand=Demand(("default",), 1, "0" * 32))
    _, _, served = published(engine, second, Message(1, "t", b"2"))
    assert served == [second]
    assert [unpack(body).body for _, _, body in second.claims[0].rows] == [b"1"]
    assert [one.message and one.message.body for one in engine.run(engine.broker.step([], WANT)).deliveries] == [b"2"]


def test_the_lease_ends_and_it_comes_again(engine: SqliteEngine) -> None:
    waiting = Work(demand=Demand(("default",), 1, "0" * 32, lease=5.0))
    published(engine, waiting, Message(1, "t", b"1"))
    clock = engine.store.now.__self__  # type: ignore[attr-defined]  # the manual clock of this test
    clock.advance(6.0)
    engine.run(engine.coordinator.reap())
    assert len(engine.run(engine.broker.step([], WANT)).deliveries) == 1


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (Demand(("other",), 1, "0" * 32), Message(1, "t", b"1")),
        (Demand(("default",), 1, "0" * 32, namespace="n"), Message(1, "t", b"1")),
        (Demand(("default",), 0, "0" * 32), Message(1, "t", b"1")),
    ],
    ids=["another queue", "another namespace", "nothing"],
)
def test_it_is_for_nobody_who_did_not_ask_for_it(engine: SqliteEngine, want: Demand, message: Message) -> None:
    waiting = Work(demand=want)
    work, wake, served = published(engine, waiting, message)
    assert not served and not waiting.claims and wake.queues
    assert isinstance(work.answers[0][0], Accepted)
    assert depth(engine) == 1 and len(engine.run(engine.broker.step([], WANT)).deliveries) == 1


def test_a_paused_queue_hands_nothing_over(engine: SqliteEngine) -> None:
    engine.run(engine.inspect.pause("default"))
    _, _, served = published(engine, Work(demand=WANT), Message(1, "t", b"1"))
    assert not served and depth(engine) == 1


def test_the_bound_holds(engine: SqliteEngine) -> None:
    workers = [Work(demand=WANT) for _ in range(4)]
    answers = [published(engine, waiting, Message(1, "t", b"1"))[0].answers[0][0] for waiting in workers]
    assert [type(answer) for answer in answers] == [Accepted, Accepted, Accepted, Full]
    assert [len(waiting.claims) for waiting in workers] == [1, 1, 1, 0] and depth(engine) == 3
