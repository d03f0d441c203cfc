"""Lanes of limits: which may be claimed, that none is stuck, and what becomes of them when nobody needs them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.broker import Accepted, Demand
from penstock.clock import ManualClock
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement, Verdict
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.board import PLACES
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.limiters import LOOK, REST
from penstock.message import Dedup, Limit, Message
from tests.acceptance.audit import check_counts

W = "0" * 32
SLOW = Limit("key", rate=0.001)
ONE = Limit("key", concurrency=1)


class Engine:
    """One with a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        opened = open_engine(f"sqlite:///{path}", clock=self.clock, durability="process")
        assert isinstance(opened, SqliteEngine)
        self.engine = opened

    def publish(self, *messages: Message) -> list[int]:
        answers = self.engine.run(self.engine.broker.publish(messages, 5))
        return [answer.key for answer in answers if isinstance(answer, Accepted) and isinstance(answer.key, int)]

    def take(self, count: int = 100, *queues: str, settle: Sequence[Settlement] = ()) -> Sequence[Delivery]:
        want = Demand(queues or ("default",), count, W, lease=60.0)
        return self.engine.run(self.engine.broker.step(settle, want)).deliveries

    def settle(self, delivery: Delivery, verdict: Verdict = ACK) -> None:
        self.engine.run(self.engine.broker.step([Settlement(delivery.receipt, verdict)], None))

    def reap(self) -> None:
        self.engine.run(self.engine.coordinator.reap())

    def query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        return self.engine.store.db.query(sql, values).fetchall()

    def lanes(self) -> dict[str, int]:
        """How each limited lane stands, by its partition."""
        return dict(self.query("SELECT partition, eligible FROM lane WHERE limiter <> 0 ORDER BY partition"))  # type: ignore[arg-type]  # text and number


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "queue.db")


def of(limit: Limit, partition: str = "", priority: int = 5, **more: object) -> Message:
    return Message(1, "t", b"[]", partition=partition, priority=priority, guards=(limit,), **more)  # type: ignore[arg-type]  # fields by name


def test_one_lane_of_an_open_limiter_is_its_front_and_none_of_a_closed_one(engine: Engine) -> None:
    engine.publish(*(of(ONE, partition) for partition in "abc" for _ in range(2)))
    assert engine.lanes() == {"a": 1, "b": 2, "c": 2}
    [first] = engine.take()
    assert engine.lanes() == {"a": 2, "b": 2, "c": 2}
    engine.settle(first)
    assert engine.lanes() == {"a": 2, "b": 1, "c": 2}, "the next has its turn"
    engine.publish(of(ONE, "z", priority=9))
    assert engine.lanes() == {"a": 2, "b": 2, "c": 2, "z": 1}, "what is urgent goes before"


def test_each_queue_of_a_limiter_has_a_front(engine: Engine) -> None:
    engine.publish(of(ONE, "a"), of(ONE, "b"), of(ONE, "c", queue="other"))
    assert engine.lanes() == {"a": 1, "b": 2, "c": 1}
    [first] = engine.take()
    assert set(engine.lanes().values()) <= {0, 2}
    engine.settle(first)
    assert engine.lanes() == {"a": 0, "b": 1, "c": 1}


def test_a_front_that_loses_its_work_makes_way(engine: Engine) -> None:
    """Its only task was put back, and is revoked there: another lane must not wait for it for ever."""
    limit = Limit("key", concurrency=2)
    engine.publish(of(limit, "a", priority=9), of(limit, "b"))
    first = engine.take(1)[0]
    engine.settle(first, RELEASE)
    assert engine.lanes() == {"a": 1, "b": 2}
    engine.engine.run(engine.engine.coordinator.revoke([first.key]))
    assert engine.lanes() == {"a": 0, "b": 1}
    assert len(engine.take()) == 1


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_no_more_are_leased_and_none_is_stuck(engine: Engine, seed: int) -> None:
    dice = random.Random(seed)
    limit = Limit("key", rate=None if seed % 2 else 5.0, burst=3.0, concurrency=3 if seed < 4 else None)
    held: list[Delivery] = []
    for _ in range(150):
        match dice.randrange(8):
            case 0 | 1:
                eta = engine.clock.time() + 1 if dice.random() < 0.3 else None
                where = {"queue": dice.choice(["default", "other"]), "partition": dice.choice("ab")}
                engine.publish(*[of(limit, priority=dice.choice([1, 9]), eta=eta, **where)] * dice.randrange(1, 4))  # type: ignore[arg-type]  # fields by name
            case 2 | 3:
                held += engine.take(dice.randrange(1, 6), *dice.sample(["default", "other"], 2))
            case 4 | 5 if held:
                verdict = dice.choice([ACK, RELEASE, Dead("no"), RetryAt(engine.clock.time() + dice.randrange(2))])
                engine.settle(held.pop(dice.randrange(len(held))), verdict)
            case 6 if held:
                engine.engine.run(engine.engine.coordinator.revoke([dice.choice(held).key]))
            case 7 if dice.random() < 0.3:
                engine.engine.run(engine.engine.coordinator.leave(W))
                held.clear()
            case _:
                engine.clock.advance(dice.random())
        if limit.concurrency is not None:
            assert len(held) <= limit.concurrency
    for _ in range(1000):
        for one in held:
            engine.settle(one)
        engine.clock.advance(1.0)
        held = list(engine.take(100, "default", "other"))
        if not held and engine.query("SELECT count(*) FROM task") == [(0,)]:
            break
    assert engine.query("SELECT count(*) FROM task") == [(0,)]
    assert set(engine.lanes().values()) <= {0}
    check_counts(engine.engine.store.db._reader)


def test_a_fast_limiter_rests_a_little_and_lets_several_go(engine: Engine) -> None:
    engine.publish(*[of(Limit("key", rate=1000.0))] * 200)
    while engine.take():
        pass
    [(again,)] = engine.query("SELECT again FROM limiter")
    assert again == pytest.approx(engine.clock.time() + REST, rel=0, abs=1e-4)
    engine.clock.advance(REST)
    assert len(engine.take()) == pytest.approx(1000 * REST, abs=1)


def test_costs_are_in_the_messages_and_small_ones_go_together(engine: Engine) -> None:
    small, large = Limit("key", rate=0.001, burst=2.0, cost=0.25), Limit("key", rate=0.001, burst=2.0, cost=1.5)
    engine.publish(*[of(small)] * 4, *[of(large)] * 2)
    assert len(engine.take()) == 4
    assert engine.query("SELECT closed FROM limiter") == [(1,)]


def test_who_takes_some_tells_who_sleeps_and_could_not_know(tmp_path: Path) -> None:
    """Each of three waits for one: the third came to no limiter yet, and nobody was woken by what a closed one got."""
    engines = [open_engine(f"sqlite:///{tmp_path}/queue.db", durability="process") for _ in range(3)]
    message, want = of(Limit("key", rate=5.0)), Demand(("default",), 1, W, wait=30.0)
    with ThreadPoolExecutor() as threads:
        steps = [threads.submit(lambda one=one: one.run(one.broker.step([], want))) for one in engines]  # type: ignore[misc]  # mypy: lambda default
        one = engines[0]
        assert isinstance(one, SqliteEngine)
        wait_for(lambda: one.store.db.board._map[:PLACES].count(1) == 3)
        one.run(one.broker.publish([message], 5))
        wait_for(lambda: sum(step.done() for step in steps) == 1)
        one.run(one.broker.publish([message], 5))
        wait_for(lambda: one.store.db.query("SELECT closed FROM limiter").fetchall() == [(1,)])
        one.run(one.broker.publish([message], 5))
        assert all(len(step.result(5).deliveries) == 1 for step in steps)
    for engine in engines:
        engine.close()


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.002)


# What is over.


def forget(engine: Engine) -> None:
    engine.clock.advance(LOOK * 1.1)
    engine.reap()


def limiters(engine: Engine) -> list[tuple[object, ...]]:
    return engine.query("SELECT key FROM limiter ORDER BY key")


def test_a_limiter_is_forgotten_when_its_line_is_over_and_its_lane_is_the_next_keys(engine: Engine) -> None:
    engine.publish(of(Limit("one", rate=1 / (LOOK * 1.5))))
    [row] = [one.receipt[1] for one in engine.take()]
    engine.settle(Delivery((engine.query("SELECT token FROM lease")[0][0], row), row, None))  # type: ignore[arg-type]  # a number
    forget(engine)
    assert limiters(engine) == [("one",)], "what was handed out is not paid yet"
    forget(engine)
    assert limiters(engine) == []
    [other] = engine.publish(of(Limit("two")))
    assert (other >> 45, other) == (row >> 45, row + 1), "the lane of the first, where ids go on"
    engine.publish(of(Limit("two"), "elsewhere"), of(Limit("three")))
    assert engine.query("SELECT count(*) FROM lane WHERE limiter > 0") == [(3,)]


@pytest.mark.parametrize("left", ["ready", "delayed", "leased", "dead"])
def test_a_limiter_with_a_task_is_not_forgotten(engine: Engine, left: str) -> None:
    eta = engine.clock.time() + 10 * LOOK if left == "delayed" else None
    engine.publish(of(ONE, eta=eta))
    if left in ("leased", "dead"):
        want = Demand(("default",), 1, W, lease=10 * LOOK)
        [delivery] = engine.engine.run(engine.engine.broker.step([], want)).deliveries
        if left == "dead":
            engine.settle(delivery, Dead("no use"))
    forget(engine)
    assert limiters(engine) == [("key",)]


def test_a_task_that_comes_back_to_a_forgotten_lane_is_limited_again(engine: Engine) -> None:
    """It ended without a result, its limiter was forgotten, and somebody publishes under its id again."""
    engine.publish(of(Limit("other")), of(ONE))
    other, delivery = engine.take()
    engine.settle(other)
    engine.settle(delivery)
    forget(engine)
    assert limiters(engine) == []
    again = of(ONE, id=engine.engine.broker.public_id(delivery.key))
    engine.publish(again, of(ONE))
    [back] = engine.take()
    assert back.key == again.id
    engine.settle(back)
    assert len(engine.take()) == 1


def test_a_limit_beside_other_guards_and_twice_in_a_batch(engine: Engine) -> None:
    message = Message(1, "t", b"[]", guards=(Dedup("seen", 60.0), SLOW))
    assert len(engine.publish(message, of(SLOW), of(SLOW))) == 3
    assert len(engine.take()) == 1


def test_what_is_taken_one_by_one_has_a_lease_each(engine: Engine) -> None:
    engine.publish(*[of(Limit("key", concurrency=5))] * 5)
    taken = engine.take()
    assert len({one.receipt[0] for one in taken}) == 5
    assert engine.query("SELECT count(*) FROM lease WHERE limiter IS NOT NULL") == [(5,)]
    assert engine.publish(Message(1, "t", b"[]"))
    engine.take()
    assert engine.query("SELECT count(*) FROM lease WHERE limiter IS NULL") == [(1,)]
