"""Parts that no result takes with it: dropped by their age, and when all together are too large."""

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.broker import Accepted, Demand, Duplicate
from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.streams import PART_WEIGHT, ROW_BYTES, ROW_PARTS, STREAM_WEIGHT
from penstock.errors import DecodeError
from penstock.message import Message
from penstock.outcome import Outcome, State

EXPIRES = 100.0
MOST = 10_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock) -> SqliteEngine:
    opened = open_engine(f"sqlite:///{tmp_path}/queue.db", clock=clock, result_expires=EXPIRES, result_max_bytes=MOST)
    assert isinstance(opened, SqliteEngine)
    return opened


@pytest.fixture
def append(engine: SqliteEngine) -> Callable[..., None]:
    marks = iter(range(1_000_000))

    def append(key: int | str, *values: bytes) -> None:
        assert engine.run(engine.backend.append(key, 0, next(marks), [(value, "json") for value in values]))

    return append


def rows(engine: SqliteEngine, table: str) -> int:
    found: int = engine.store.db.query(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def reap(engine: SqliteEngine, clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    engine.run(engine.coordinator.reap())


def test_parts_of_who_was_never_here_are_dropped_when_nothing_was_added_for_long(
    engine: SqliteEngine, append: Callable[..., None], clock: ManualClock
) -> None:
    append("old", b"1")
    append("new", b"1")
    reap(engine, clock, EXPIRES * 0.8)
    append("new", b"2")
    reap(engine, clock, EXPIRES * 0.8)
    kept = [engine.run(engine.backend.parts(key, 0, 10)).end for key in ("old", "new")]
    assert kept == [0, 2]
    assert [rows(engine, table) for table in ("stream", "part", "alias")] == [1, 2, 1]


def test_a_task_that_is_here_keeps_its_parts_however_long_it_runs(
    engine: SqliteEngine, append: Callable[..., None], clock: ManualClock
) -> None:
    [answer] = engine.run(engine.broker.publish([Message(1, "t", b"[]")], 5))
    assert isinstance(answer, Accepted)
    append(answer.key, b"1")
    reap(engine, clock, EXPIRES * 10)
    [delivery] = engine.run(engine.broker.step([], Demand(("default",), 1, "0" * 32))).deliveries
    engine.run(
        engine.broker.step([Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, b"1", clock.time()))], None)
    )
    reap(engine, clock, EXPIRES * 0.5)
    assert rows(engine, "part") == 1
    reap(engine, clock, EXPIRES)
    assert [rows(engine, table) for table in ("result", "stream", "part")] == [0, 0, 0]


def test_the_oldest_go_when_all_together_are_too_large(
    engine: SqliteEngine, append: Callable[..., None], clock: ManualClock
) -> None:
    for number in range(4):
        append(f"task-{number}", b"x" * (MOST // 3 - STREAM_WEIGHT - PART_WEIGHT))
        clock.advance(1)
    reap(engine, clock, 20)
    kept = [engine.run(engine.backend.parts(f"task-{number}", 0, 10)).end for number in range(4)]
    assert kept == [0, 1, 1, 1]


def test_parts_of_nothing_are_something_when_there_are_many(
    engine: SqliteEngine, append: Callable[..., None], clock: ManualClock
) -> None:
    for number in range(4):
        append(f"task-{number}", *[b""] * (MOST // 3 // PART_WEIGHT))
        clock.advance(1)
    reap(engine, clock, 20)
    kept = [engine.run(engine.backend.parts(f"task-{number}", 0, 1)).end for number in range(4)]
    assert kept[:2] == [0, 0] and kept[3] > 0


def test_looking_for_them_costs_nothing_most_of_the_time(engine: SqliteEngine, clock: ManualClock) -> None:
    reap(engine, clock, 100)
    assert not engine.store.streams.may_be_stale()
    clock.advance(60)
    assert engine.store.streams.may_be_stale()


def test_a_row_holds_some_parts_only(engine: SqliteEngine, append: Callable[..., None]) -> None:
    append("many", *[b"1"] * (ROW_PARTS * 2 + 1))
    append("large", *[b"x" * (ROW_BYTES // 2 + 1)] * 3)
    counts = engine.store.db.query("SELECT count FROM part ORDER BY id, n").fetchall()
    assert counts == [(ROW_PARTS,), (ROW_PARTS,), (1,), (1,), (1,), (1,)]
    found = engine.run(engine.backend.parts("many", ROW_PARTS - 1, 3))
    assert [part.index for part in found.parts] == [ROW_PARTS - 1, ROW_PARTS, ROW_PARTS + 1]


def test_damage_is_told(engine: SqliteEngine, append: Callable[..., None]) -> None:
    append("task", b"1")
    engine.store.db.write(lambda: engine.store.db.execute("UPDATE part SET v = x'c1'"))
    with pytest.raises(DecodeError, match="stored parts are damaged"):
        engine.run(engine.backend.parts("task", 0, 10))


def test_an_append_is_looked_up_by_names_only_while_somebody_listens_by_one(
    engine: SqliteEngine, append: Callable[..., None]
) -> None:
    append("chosen", b"1")
    row = engine.store.row_of("chosen")
    assert row is not None
    ears, told = engine.store.ears, list[str]()
    numbers = ears.add(row, lambda: told.append("number"))
    names = [ears.add("chosen", lambda: told.append("name")) for _ in range(2)]
    ears.added(row)
    assert sorted(told) == ["name", "name", "number"]
    for ear in (*names, numbers, names[0]):  # one of them twice
        ear.close()
    told.clear()
    last = ears.add("chosen", lambda: told.append("last"))
    ears.added(row)
    assert told == ["last"]
    last.close()


def test_parts_alone_do_not_take_the_id_of_a_call(engine: SqliteEngine, append: Callable[..., None]) -> None:
    append("chosen", b"of one that was lost")
    for answer in (Accepted("chosen"), Duplicate("chosen")):
        assert engine.run(engine.broker.publish([Message(1, "t", b"1", id="chosen")], 1.0)) == [answer]
    # It may be the next try of the task that left them: they are its own from now on.
    assert engine.run(engine.backend.parts("chosen", 0, 10)).end == 1
    [report] = engine.run(engine.backend.fetch(["chosen"]))
    assert report.state is State.PENDING
