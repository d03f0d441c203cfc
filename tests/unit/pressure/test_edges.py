"""Real queues at the edges of what a bound promises: absurd limits, clocks that are set, lowered bounds, floods."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Penstock, Queue, QueueFull
from penstock.broker import Demand
from penstock.clock import ManualClock
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement
from penstock.errors import ConfigError
from penstock.outcome import Outcome, State
from penstock.pressure.keeper import Keeper, Local
from penstock.pressure.samples import Samples, Times


class JumpyClock(ManualClock):
    """A clock whose date may be set, as an administrator does it; what has passed is told all the same."""

    off = 0.0

    def time(self) -> float:
        return super().time() + self.off


class Place:
    """A queue of the embedded engine, and processes that work on it, as their keepers see them."""

    def __init__(self, path: Path, queue: Queue) -> None:
        self.clock = JumpyClock()
        self.path, self.queue = path, queue
        self.app = self.opened(queue)
        self.worker = secrets.token_hex(16)
        now = self.clock.time()
        info = WorkerInfo(self.worker, "w", "here", os.getpid(), 1, (queue.name,), "p", now, now)
        self.app.engine.run(self.app.engine.coordinator.join(info))

    def opened(self, queue: Queue) -> Penstock:
        app = Penstock(
            "p", broker=f"sqlite:///{self.path}", clock=self.clock, durability="process", task_queues=[queue]
        )
        app.task(name="t", queue=queue.name)(lambda: None)
        return app

    def process(self, seconds: float, slots: int = 4, app: Penstock | None = None) -> Keeper:
        """A worker process whose tasks take so long."""
        times = Times()
        for _ in range(100):
            times.add(seconds)
        local = Local(slots, [Samples([(self.queue.name, "t", times)], {})])
        return Keeper(app or self.app, (self.queue.name,), lambda: local)

    def pass_seconds(self, seconds: int, *processes: Keeper) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            for process in processes:
                self.app.engine.run(process.tick(self.clock.monotonic()))

    def claim(self, count: int) -> list[Delivery]:
        """What is handed out; it is done at once."""
        engine = self.app.engine
        taken = list(engine.run(engine.broker.step([], Demand((self.queue.name,), count, self.worker))).deliveries)
        done = Outcome(State.SUCCESS, b"null", self.clock.time())
        engine.run(engine.broker.step([Settlement(one.receipt, ACK, done) for one in taken], None))
        return taken

    def send(self, count: int = 1, partition: str = "") -> int:
        """How many were let in, one by one."""
        for number in range(count):
            try:
                self.app.tasks["t"].apply_async(partition=partition)
            except QueueFull:
                return number
        return count

    @property
    def bound(self) -> int:
        found = self.app.engine.run(self.app.engine.inspect.queues())
        return next(one.max_length for one in found if one.name == self.queue.name)

    @property
    def depth(self) -> int:
        return self.app.engine.run(self.app.broker.depth(self.queue.name, "")) or 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "queue.db", Queue("mail", 10_000, max_latency="2s"))
    yield made
    made.app.close()


@pytest.mark.parametrize("limit", [-1, 0, "-2s", float("nan"), float("inf"), sys.float_info.max, "1e300d", 1e10, True])
@pytest.mark.parametrize("setting", ["max_latency", "max_age"])
def test_limits_that_cannot_be_meant_are_refused_and_named(setting: str, limit: float | str) -> None:
    with pytest.raises(ConfigError, match=f"queue 'mail': {setting} must be seconds above 0"):
        Queue("mail", **{setting: limit})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("limit", [-1, 0, 1.5, True, "many", 1 << 63])
@pytest.mark.parametrize("setting", ["max_length", "max_bytes"])
def test_so_are_bounds(setting: str, limit: object) -> None:
    with pytest.raises(ConfigError, match=f"queue 'mail': {setting} must be"):
        Queue("mail", **{setting: limit})  # type: ignore[arg-type]  # by name


def test_a_latency_that_no_task_can_keep_leaves_one_for_each_thread(tmp_path: Path) -> None:
    place = Place(tmp_path / "queue.db", Queue("mail", max_latency=1e-9))
    place.send()
    place.pass_seconds(2, place.process(60.0))
    assert place.bound == 4
    assert place.send(10) == 3
    place.app.close()


def test_the_longest_latency_is_the_declared_bound(tmp_path: Path) -> None:
    place = Place(tmp_path / "queue.db", Queue("mail", 500, max_latency="365d"))
    place.send()
    place.pass_seconds(2, place.process(1e-7))
    assert place.bound == 500
    place.app.close()


@pytest.mark.parametrize("off", [3600.0, -3600.0, 1e9])
def test_a_clock_that_is_set_does_not_move_the_bound(place: Place, off: float) -> None:
    place.send()
    one, other = place.process(0.1), place.process(0.1)
    place.pass_seconds(3, one, other)
    assert place.bound == 152
    place.clock.off = off
    place.pass_seconds(3, one, other)
    assert place.bound == 152, "of both processes, who tell of themselves anew"
    assert place.send(10_000) == 151


def test_a_clock_that_is_set_back_while_no_worker_lives_keeps_the_last_rate(place: Place) -> None:
    place.send()
    place.pass_seconds(3, place.process(0.1))
    place.pass_seconds(20)
    place.clock.off = -3600.0
    place.pass_seconds(5)
    assert place.bound == 76
    assert place.send(10_000) == 75


def test_by_a_clock_that_is_set_on_all_that_waits_is_too_old_until_it_has_gone(tmp_path: Path) -> None:
    place = Place(tmp_path / "queue.db", Queue("mail", 500, max_age="1m"))
    worker = place.process(0.1)
    place.send(3)
    place.pass_seconds(2, worker)
    assert place.bound == 500
    place.clock.off = 3600.0
    place.pass_seconds(1, worker)
    assert (place.bound, place.send()) == (1, 0)
    assert len(place.claim(10)) == 3, "nothing was dropped"
    place.pass_seconds(1, worker)
    assert (place.bound, place.send()) == (500, 1)
    place.app.close()


def test_a_policy_that_becomes_stricter_drops_nothing_and_lets_in_again_when_there_is_room(place: Place) -> None:
    assert place.send(70) == 70
    place.pass_seconds(2, place.process(0.1))
    stricter = place.opened(Queue("mail", 10_000, max_latency="500ms"))
    place.pass_seconds(12, place.process(0.1, app=stricter))
    assert (place.bound, place.depth) == (19, 70)
    with pytest.raises(QueueFull) as raised:
        place.app.tasks["t"].delay()
    assert (raised.value.depth, raised.value.limit) == (70, 19)
    assert raised.value.retry_after > 0
    assert len(place.claim(51)) == 51
    assert (place.send(), place.depth) == (0, 19)
    place.claim(1)
    assert (place.send(), place.depth) == (1, 19)
    assert len(place.claim(100)) == 19, "all that was accepted"
    stricter.close()


def test_a_bound_that_is_declared_below_the_depth_keeps_what_is_there(place: Place) -> None:
    place.send(50)
    place.app.engine.run(place.app.engine.inspect.declare([Queue("mail", 10)]))
    assert (place.send(), place.depth) == (0, 50)
    assert len(place.claim(41)) == 41
    assert place.send(5) == 1


def test_beside_a_partition_that_floods_another_has_its_turn_and_shares_the_bound(place: Place) -> None:
    place.send()
    place.claim(1)
    place.pass_seconds(2, place.process(0.1))
    assert place.send(75, "flood") == 75
    assert place.send(1, "other") == 1
    assert place.send(1, "other") == 0, "the bound is one for the queue"
    first = [one.message.partition for one in (place.claim(1) + place.claim(1)) if one.message]
    assert "other" in first
    assert place.send(1, "other") == 1, "whoever comes first takes the room"
