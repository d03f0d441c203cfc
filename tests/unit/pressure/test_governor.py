"""The governor against the memory engine, with a clock in hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock import Penstock, Queue
from penstock.contrib.clock import TravelClock
from penstock.pressure.keeper import Keeper, Local
from penstock.pressure.samples import Samples, Times


def sampled(seconds: float, count: int = 100, queue: str = "mail") -> list[Samples]:
    times = Times()
    for _ in range(count):
        times.add(seconds)
    return [Samples([(queue, "t", times)], {})]


class Process:
    """A worker process, as its keeper sees it."""

    def __init__(self, app: Penstock, local: Local) -> None:
        self.local = local
        self._app = app
        self._keeper = Keeper(app, ("mail",), lambda: self.local)

    def tick(self) -> None:
        self._app.engine.run(self._keeper.tick(self._app.clock.monotonic()))


class Stage:
    def __init__(self, queue: Queue) -> None:
        self.clock = TravelClock(1_700_000_000.0)
        self.app = Penstock("p", broker="memory://", clock=self.clock, task_queues=[queue])
        self.send = self.app.task(name="t", queue="mail")(lambda: None)
        self.send.delay()

    def process(self, slots: int, samples: list[Samples]) -> Process:
        return Process(self.app, Local(slots, samples))

    def pass_seconds(self, seconds: float, *processes: Process) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            for process in processes:
                process.tick()

    @property
    def bound(self) -> int:
        found = self.app.engine.run(self.app.engine.inspect.queues())
        return next(one.max_length for one in found if one.name == "mail")


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(Queue("mail", 10_000, max_latency="2s"))
    yield made
    made.app.close()


def test_the_bound_follows_the_samples_of_all_processes(stage: Stage) -> None:
    one, other = stage.process(4, sampled(0.1)), stage.process(4, sampled(0.1))
    stage.pass_seconds(2, one)
    assert stage.bound == 76
    stage.pass_seconds(2, one, other)
    assert stage.bound == 152
    one.local, other.local = Local(4, sampled(0.4)), Local(4, sampled(0.4))
    stage.pass_seconds(2, one, other)
    assert stage.bound == 38


def test_threads_that_nobody_tells_of_are_not_counted(stage: Stage) -> None:
    one, other = stage.process(4, sampled(0.1)), stage.process(4, sampled(0.1))
    stage.pass_seconds(2, one, other)
    assert stage.bound == 152
    stage.pass_seconds(8, one)
    assert stage.bound == 76


def test_who_leads_is_replaced(stage: Stage) -> None:
    leader, other = stage.process(4, sampled(0.1)), stage.process(4, sampled(0.1))
    stage.pass_seconds(2, leader, other)
    other.local = Local(4, sampled(0.2))
    stage.pass_seconds(12, other)
    assert stage.bound == 38


def test_a_deploy_keeps_the_last_rate_for_the_grace_and_then_the_static_bound(stage: Stage) -> None:
    old = stage.process(4, sampled(0.1))
    stage.pass_seconds(2, old)
    stage.pass_seconds(20)
    new = stage.process(8, [])
    stage.pass_seconds(10, new)
    assert stage.bound == 152, "known by what the last leader stored"
    stage.pass_seconds(300, new)
    assert stage.bound == 10_000, "nothing is known any more"


def test_without_samples_nothing_changes(stage: Stage) -> None:
    stage.pass_seconds(3, stage.process(4, []))
    assert stage.bound == 10_000


def test_what_others_declare_is_put_right(stage: Stage) -> None:
    one = stage.process(4, sampled(0.1))
    stage.pass_seconds(2, one)
    stage.app.engine.run(stage.app.engine.inspect.declare([Queue("mail", 10_000)]))
    stage.pass_seconds(1, one)
    assert stage.bound == 76


def test_too_old_refuses_what_is_new_and_expires_nothing() -> None:
    stage = Stage(Queue("mail", 10_000, max_age=10))
    one = stage.process(4, sampled(0.1))
    stage.pass_seconds(9, one)
    assert stage.bound == 10_000
    stage.pass_seconds(3, one)
    assert stage.bound == 1
    assert stage.app.engine.run(stage.app.broker.depth("mail", "")) == 1
    stage.app.engine.run(stage.app.engine.inspect.purge("mail"))
    stage.pass_seconds(1, one)
    assert stage.bound == 10_000
    stage.app.close()
