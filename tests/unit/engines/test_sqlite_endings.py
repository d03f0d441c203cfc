"""What is left of tasks that ended together, and that one of them does not take the others' along."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from penstock.broker import Demand
from penstock.clock import ManualClock
from penstock.coordinator import Revoked
from penstock.delivery import ACK, Dead, Delivery, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.errors import DecodeError
from penstock.message import Message, pack, unpack
from penstock.outcome import Outcome, Progress, State

WANT = Demand(("default",), 100, "0" * 32)
PLAIN = Message(1, "t", b"[]")


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    opened = open_engine(f"sqlite:///{tmp_path}/queue.db", clock=ManualClock())
    assert isinstance(opened, SqliteEngine)
    return opened


def take(engine: SqliteEngine, *messages: Message) -> Sequence[Delivery]:
    if messages:
        engine.run(engine.broker.publish(messages, 5))
    return engine.run(engine.broker.step([], WANT)).deliveries


def settle(engine: SqliteEngine, *settlements: Settlement) -> None:
    engine.run(engine.broker.step(settlements, None))


def done(value: bytes = b"1") -> Outcome:
    return Outcome(State.SUCCESS, value, 0.0)


def states(engine: SqliteEngine, deliveries: Sequence[Delivery]) -> list[State]:
    return [report.state for report in engine.run(engine.backend.fetch([one.key for one in deliveries]))]


def test_a_result_that_is_forgotten_and_stored_again_hides_no_neighbour(engine: SqliteEngine) -> None:
    tasks = take(engine, *[PLAIN] * 5)
    settle(
        engine,
        *(Settlement(one.receipt, Dead("it failed") if one is tasks[2] else ACK, done()) for one in tasks),
    )
    assert engine.run(engine.inspect.retry_dead([engine.broker.public_id(tasks[2].key)])) == 1
    [again] = take(engine)
    assert states(engine, tasks)[2] is not State.SUCCESS
    settle(engine, Settlement(again.receipt, ACK, done(b"2")))
    assert states(engine, tasks) == [State.SUCCESS] * 5
    [report] = engine.run(engine.backend.fetch([again.key]))
    assert report.outcome is not None
    assert report.outcome.value == b"2"


@pytest.mark.parametrize("forgotten", [0, 2, 4])
def test_one_result_of_many_is_forgotten(engine: SqliteEngine, forgotten: int) -> None:
    tasks = take(engine, *[PLAIN] * 5)
    settle(engine, *(Settlement(one.receipt, ACK, done()) for one in tasks))
    engine.run(engine.backend.forget([tasks[forgotten].key]))
    expected = [State.UNKNOWN if number == forgotten else State.SUCCESS for number in range(5)]
    assert states(engine, tasks) == expected


def test_a_chosen_id_lives_as_long_as_its_result_whatever_ends_beside_it(engine: SqliteEngine) -> None:
    tasks = take(engine, PLAIN, Message(1, "t", b"[]", id="chosen"), PLAIN)
    settle(engine, *(Settlement(one.receipt, ACK, done() if one is tasks[1] else None) for one in tasks))
    assert engine.run(engine.backend.fetch(["chosen"]))[0].state is State.SUCCESS


def test_a_chosen_id_goes_with_its_task_when_nothing_is_stored(engine: SqliteEngine) -> None:
    tasks = take(engine, PLAIN, Message(1, "t", b"[]", id="chosen"), PLAIN)
    settle(engine, *(Settlement(one.receipt, ACK, None if one is tasks[1] else done()) for one in tasks))
    assert engine.store.db.query("SELECT count(*) FROM alias").fetchone() == (0,)


def test_a_dead_letter_leaves_no_notes_that_would_end_its_next_life(engine: SqliteEngine) -> None:
    [task] = take(engine, PLAIN)
    engine.run(engine.backend.note(task.key, Progress(1.0)))
    assert engine.run(engine.coordinator.revoke([task.key])) == [Revoked.RUNNING]
    settle(engine, Settlement(task.receipt, Dead("it failed"), done()))
    assert engine.store.db.query("SELECT count(*) FROM progress").fetchone() == (0,)
    engine.run(engine.inspect.retry_dead([engine.broker.public_id(task.key)]))
    assert len(take(engine)) == 1


@pytest.mark.parametrize("damage", ["text", "depth"])
def test_whatever_the_bytes_are_they_are_delivered_as_damaged(engine: SqliteEngine, damage: str) -> None:
    data = pack(PLAIN)
    if damage == "text":  # not UTF-8
        data = data.replace(b"default", b"\xff" * 7)
    else:  # a further field, of a newer version, nested deeper than anything can be read
        fields = msgspec.msgpack.decode(data)
        head = msgspec.msgpack.encode([*fields, 0])[:-1]
        data = head + b"\x91" * 100_000 + b"\x00"
    with pytest.raises(DecodeError):
        unpack(data)
    [answer] = engine.run(engine.broker.publish([PLAIN], 5))
    engine.store.change(lambda _: engine.store.db.execute("UPDATE task SET body = ?", (data,)))
    [delivery] = take(engine)
    assert delivery.message is None
    assert delivery.raw == data
    assert delivery.key == answer.key  # type: ignore[union-attr]  # it was accepted
