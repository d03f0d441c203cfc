"""A full queue that sheds, on a file: what is counted, what is remembered of lanes, and how little is looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.broker import Accepted, Answer, Demand, Full
from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite import victims as victims_module
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.publishing import Wake, outgoing
from penstock.message import Limit, Message, Options, Place, Unique, unpack
from penstock.queue import Queue, QueueInfo

PART = Options(place=Place("0" * 32, 1))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    opened = open_engine(f"sqlite:///{tmp_path}/queue.db", clock=ManualClock(), durability="process")
    assert isinstance(opened, SqliteEngine)
    yield opened
    opened.close()


def declare(engine: SqliteEngine, overflow: Any, length: int) -> None:
    engine.run(engine.inspect.declare([Queue("q", length, overflow=overflow)]))


def call(body: str = "", **fields: Any) -> Message:
    return Message(1, "t", body.encode(), queue="q", **fields)


def publish(engine: SqliteEngine, *messages: Message) -> Sequence[Answer]:
    return engine.run(engine.broker.publish(messages, 5))


def bodies(engine: SqliteEngine, limit: int = 100) -> list[str]:
    step = engine.run(engine.broker.step([], Demand(("q",), limit, "w")))
    return [delivery.message.body.decode() for delivery in step.deliveries if delivery.message]


def info(engine: SqliteEngine) -> QueueInfo:
    [found] = engine.run(engine.inspect.queues())
    return found


def lane(engine: SqliteEngine, columns: str, where: str = "id > 0") -> tuple[Any, ...]:
    found: tuple[Any, ...] = engine.store.db.query(f"SELECT {columns} FROM lane WHERE {where}").fetchone()
    return found


def dead(engine: SqliteEngine) -> list[str]:
    letters = engine.run(engine.inspect.dead_letters("q"))
    return sorted(letter.message.body.decode() for letter in letters if letter.message)


def test_counts_are_right_while_there_are_holes(engine: SqliteEngine) -> None:
    declare(engine, "shed-lowest-priority", 6)
    publish(engine, *(call(str(n), priority=1) for n in range(6)))
    assert bodies(engine, 2) == ["0", "1"]
    publish(engine, call("a"), call("b"))
    assert dead(engine) == ["4", "5"]
    found = info(engine)
    assert (found.depth, found.ready, found.leased, found.shed, found.settled) == (6, 4, 2, 2, 2)
    assert lane(engine, "holes", "priority = 1") == (2,)
    assert bodies(engine, 3) == ["a", "b", "2"]
    assert lane(engine, "holes", "priority = 1") == (2,)
    assert bodies(engine) == ["3"]
    assert lane(engine, "holes, eligible", "priority = 1") == (0, 0)
    assert (info(engine).ready, info(engine).leased) == (0, 6)


def test_holes_in_the_middle_are_passed(engine: SqliteEngine) -> None:
    declare(engine, "shed-lowest-priority", 4)
    publish(engine, call("0", priority=1), call("1", priority=1))
    publish(engine, *(call(f"part {n}", priority=1, options=PART) for n in range(2)))
    publish(engine, call("new"))
    assert lane(engine, "holes", "priority = 1") == (1,)
    assert bodies(engine, 3) == ["new", "0", "part 0"]
    assert lane(engine, "holes", "priority = 1") == (0,)
    assert (info(engine).ready, info(engine).leased) == (1, 3)
    assert bodies(engine) == ["part 1"]


@pytest.mark.parametrize("overflow", ["drop-oldest", "shed-lowest-priority"])
def test_who_might_have_gone_for_a_batch_may_go_for_one(engine: SqliteEngine, overflow: str) -> None:
    declare(engine, overflow, 3)
    publish(engine, *(call(body, priority=1, options=None if body == "0" else PART) for body in ("part", "0", "part")))
    assert [type(one) for one in publish(engine, call("new"), call("new"))] == [Full, Full]
    assert type(publish(engine, call("new"))[0]) is Accepted
    assert dead(engine) == ["0"]


def test_the_next_of_a_limit_goes_on_where_the_first_was_shed(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 2)
    now = engine.store.now()
    for n, partition in enumerate("ab"):
        publish(engine, call(partition, partition=partition, guards=(Limit("key", concurrency=1),), sent=now + n))
    publish(engine, call("new", priority=0, sent=now + 2))
    assert dead(engine) == ["a"]
    assert bodies(engine) == ["b", "new"]


def test_a_lane_whose_oldest_go_has_no_holes(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 2)
    publish(engine, call("0", priority=3), call("1", priority=3))
    publish(engine, call("2"))
    assert lane(engine, "tail - head, holes, eligible", "priority = 3") == (1, 0, 1)
    publish(engine, call("3"))
    assert lane(engine, "tail - head, holes, eligible", "priority = 3") == (0, 0, 0)
    assert bodies(engine) == ["2", "3"]


def test_what_was_due_leaves_its_range(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 3)
    publish(engine, *(call(str(n), eta=engine.store.now() + 1) for n in range(3)))
    clock = engine.store.settings.clock
    assert isinstance(clock, ManualClock)
    clock.advance(5)
    publish(engine, call("new", sent=engine.store.now()))
    assert dead(engine) == ["0"]
    assert lane(engine, "back, eligible") == (2, 1)
    publish(engine, *(call(f"new {n}", sent=engine.store.now()) for n in range(2)))
    assert lane(engine, "back") == (0,)
    assert info(engine).ready == 3
    assert sorted(bodies(engine)) == ["new", "new 0", "new 1"]


def test_a_dead_letter_that_comes_back_into_what_is_new_is_delivered_once(engine: SqliteEngine) -> None:
    declare(engine, "shed-lowest-priority", 3)
    publish(engine, *(call(str(n), priority=1) for n in range(3)))
    [_, _, last] = engine.run(engine.inspect.peek("q"))
    publish(engine, call("new"))
    assert engine.run(engine.inspect.retry_dead([last.id])) == 1
    assert lane(engine, "holes", "priority = 1") == (0,)
    assert bodies(engine) == ["new", "0", "1", "2"]
    assert bodies(engine) == []


def test_who_waits_is_woken_only_if_somebody_may(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 1)
    store = engine.store

    def woken(message: Message) -> bool:
        wake = Wake()
        store.db.write(lambda: store.publisher.publish([outgoing([message])], wake))
        return wake.results

    assert not woken(call())
    assert woken(call(options=Options(ignore_result=True)))
    assert not woken(call("", id="mixed"))
    assert woken(call("", id="mixed too"))


def test_what_may_not_go_is_looked_at_once(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that stay, in front of the oldest and behind the newest, are remembered, bit by bit if they are many."""
    read: list[bytes] = []
    monkeypatch.setattr(victims_module, "LOOKS", 4)
    monkeypatch.setattr(victims_module, "unpack", lambda body: (read.append(body), unpack(body))[1])
    for overflow, late in (("drop-oldest", False), ("shed-lowest-priority", True)):
        engine.run(engine.inspect.purge("q"))
        parts = [call(f"part {n}", priority=1, options=PART) for n in range(10)]
        plain = [call("plain 0", priority=1), call("plain 1", priority=1)]
        declare(engine, overflow, 12)
        publish(engine, *(plain + parts if late else parts + plain))
        for looked in (4, 8):
            assert type(publish(engine, call("new"))[0]) is Full, overflow
            assert lane(engine, "spared_hi - spared_lo", "priority = 1") == (looked,)
        assert type(publish(engine, call("new"))[0]) is Accepted, overflow
        read.clear()
        publish(engine, call("new"))
        assert len(read) <= 2, overflow  # the next one of each lane
        assert type(publish(engine, call("new", priority=1))[0]) is (Full if late else Accepted)


def test_of_many_lanes_few_are_looked_at(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane whose tasks are young is not looked at again until the others are as young."""
    declare(engine, "drop-oldest", 400)
    now = engine.store.now()
    for n in range(400):
        publish(engine, call(str(n), partition=f"p{n % 200}", sent=now - 1000 + n))
    publish(engine, call("new", sent=now))
    read: list[bytes] = []
    monkeypatch.setattr(victims_module, "unpack", lambda body: (read.append(body), unpack(body))[1])
    for _ in range(20):
        publish(engine, call("new", sent=now))
    assert dead(engine) == sorted(str(n) for n in range(21))
    assert len(read) < 20 * 12


def test_a_policy_declared_by_a_newer_process_holds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    with_bound = [Queue("q", 1), Queue("q", 2, overflow="drop-oldest"), Queue("q", 5, max_latency=5.0)]
    found = []
    for queue in with_bound:
        engine = open_engine(url, queues=[queue], durability="process")
        assert isinstance(engine, SqliteEngine)
        found.append([type(publish(engine, call())[0]) for _ in range(3)])
        found[-1].append(info(engine).max_length)
        engine.close()
    assert found[0] == [Accepted, Full, Full, 1]
    assert found[1] == [Accepted, Accepted, Accepted, 2]
    assert found[2] == [Full, Full, Full, 2], "the bound is its workers' business, its policy is not"


def test_lasting_keys_stay_and_others_are_free(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 1)
    publish(engine, call(guards=(Unique("free"), Unique("lasting", until="ttl", ttl=1000.0))))
    publish(engine, call())
    keys = engine.store.db.query("SELECT name FROM unique_key").fetchall()
    assert keys == [("lasting",)]


def test_dead_letters_are_bounded_a_little_at_a_time(engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engines.sqlite.reaping.KEEP_DEAD", 3)
    monkeypatch.setattr("penstock.engines.sqlite.reaping.AT_ONCE", 2)
    declare(engine, "drop-oldest", 1)
    clock = engine.store.settings.clock
    assert isinstance(clock, ManualClock)
    for n in range(9):
        publish(engine, call(str(n)))
        clock.advance(1)
    assert len(dead(engine)) == 8
    engine.run(engine.coordinator.reap())
    assert dead(engine) == ["5", "6", "7"]


def test_a_large_batch_sheds_in_bulk(engine: SqliteEngine) -> None:
    declare(engine, "drop-oldest", 2_000)
    for start in range(0, 4_000, 1_000):
        publish(engine, *(call(str(start + n)) for n in range(1_000)))
    started = time.monotonic()
    assert info(engine).shed == 2_000
    step = engine.run(engine.broker.step([], Demand(("q",), 5_000, "w")))
    assert [one.message.body for one in step.deliveries if one.message] == [b"%d" % n for n in range(2_000, 4_000)]
    ends = [Settlement(one.receipt, ACK) for one in step.deliveries]
    engine.run(engine.broker.step(ends, None))
    assert info(engine).depth == 0
    assert time.monotonic() - started < 20
