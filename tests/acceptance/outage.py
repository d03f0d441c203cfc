"""A load on a forgetful disk, what was promised when the power went, and what is left of it afterwards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw

from penstock.broker import Accepted, Demand, Done
from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.settings import Durability, Settings
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.queue import Queue
from tests.acceptance.audit import check_counts
from tests.acceptance.power import Disk, Image, restore


class Moment(NamedTuple):
    """What was promised when the power went, and what a fresh machine would find."""

    image: Image
    published: frozenset[int]
    settled: frozenset[int]


class Load:
    """Two engines on one disk: one publishes, one works; each notes what it was promised."""

    def __init__(self, folder: Path, disk: Disk, durability: Durability) -> None:
        self.clock = ManualClock()
        self.disk = disk
        settings = Settings(
            str(folder / "queue.db"),
            self.clock,
            (Queue("default"),),
            durability,
            sync=disk.sync_descriptor,
            vfs=disk.name,
        )
        self.published: set[int] = set()
        self.settled: set[int] = set()
        self.moments: list[Moment] = []
        self.images: Callable[[], list[Image]] = lambda: [disk.cut()]
        disk.watch = self._watch
        self._inside = False
        self._next = 0
        self._rng = random.Random(5)
        self.producer, self.worker = SqliteEngine(settings), SqliteEngine(settings)

    def _watch(self) -> None:
        for image in self.images():
            self.moments.append(Moment(image, frozenset(self.published), frozenset(self.settled)))

    def interleave(self) -> None:
        """From now on, others work between each commit of the producer and its sync."""
        self.disk.before_own_sync = self._work_in_between

    def _work_in_between(self) -> None:
        if not self._inside:
            self._inside = True
            self.work()
            self._inside = False

    def publish(self) -> None:
        count = self._rng.choice((1, 1, 3, 40))
        numbers = range(self._next, self._next + count)
        self._next += count
        batch = [Message(1, "t", b"%d" % number + b" " * self._rng.randrange(400)) for number in numbers]
        answers = self.producer.run(self.producer.broker.publish(batch, 30.0))
        assert all(isinstance(answer, Accepted) for answer in answers)
        self.published.update(numbers)

    def work(self) -> None:
        self.settled.update(work(self.worker, self._rng.choice((1, 8, 64)), self.clock))

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.publish()
            self._watch()
            self.work()
            self._watch()

    def close(self) -> None:
        self.disk.watch = self.disk.before_own_sync = lambda: None
        self.producer.close()
        self.worker.close()


def work(engine: SqliteEngine, limit: int, clock: ManualClock) -> list[int]:
    """Take up to `limit` tasks and settle them, once; the numbers for which that was confirmed."""
    deliveries = engine.run(engine.broker.step((), Demand(("default",), limit, "w" * 32))).deliveries
    numbers = [int(delivery.message.body) for delivery in deliveries if delivery.message]
    settlements = [
        Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, b"%d" % number, clock.time()))
        for delivery, number in zip(deliveries, numbers, strict=True)
    ]
    answers = engine.run(engine.broker.step(settlements, None)).settled
    return [number for number, answer in zip(numbers, answers, strict=True) if isinstance(answer, Done)]


def aftermath(moment: Moment, folder: Path) -> tuple[set[int], set[int]]:
    """Start anew from what is on the disk, finish everything; tasks that are lost, and settlements that are."""
    path = restore(moment.image, folder)
    clock = ManualClock()
    clock.advance(3600)  # the machine was off for a while: leases have run out
    engine = SqliteEngine(Settings(str(path), clock, durability="process"))
    before = results(path)
    engine.run(engine.coordinator.reap())
    again: set[int] = set()
    while numbers := work(engine, 256, clock):
        again.update(numbers)
    after = results(path)
    engine.close()
    lost = set(moment.published - after)
    undone = set(moment.settled - before) | (moment.settled & again)
    shutil.rmtree(folder)
    return lost, undone


def results(path: Path) -> set[int]:
    connection = apsw.Connection(str(path))
    check_counts(connection)
    found = {value for (value,) in connection.execute("SELECT value FROM result_list")}
    connection.close()
    return found


def examine(moments: list[Moment], folder: Path) -> tuple[int, int]:
    """How many moments lost tasks, and how many settlements."""
    found = [aftermath(moment, folder / "after") for moment in moments]
    return sum(bool(lost) for lost, _ in found), sum(bool(undone) for _, undone in found)
