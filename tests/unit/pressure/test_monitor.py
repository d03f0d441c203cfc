"""Alarms of worker processes against the memory engine, with a clock in hand: one process tells, the next goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import AccessRefused, Penstock, Queue
from penstock.contrib.clock import TravelClock
from penstock.pressure.alarms import PressureEvent
from penstock.pressure.keeper import Keeper, Local, watched
from penstock.pressure.raised import FRESH, raised, read
from penstock.pressure.reports import Run, Standing
from penstock.pressure.samples import Samples, Times


def sampled(seconds: float, count: int = 100) -> list[Samples]:
    times = Times()
    times.add(seconds, count)
    return [Samples([("mail", "t", times)], {})]


class Process:
    def __init__(self, app: Penstock, name: str) -> None:
        self.local = Local(2, [])
        self._app = app
        self._keeper = Keeper(app, ("mail",), lambda: self.local, name)

    def tick(self) -> None:
        self._app.engine.run(self._keeper.tick(self._app.clock.monotonic()))
        self._keeper.close()  # so that what it tells has been told


class Stage:
    def __init__(self, **settings: Any) -> None:
        self.clock = TravelClock(1_700_000_000.0)
        queue = Queue("mail", 10)
        self.app = Penstock("p", broker="memory://", clock=self.clock, task_queues=[queue], **settings)
        self.send = self.app.task(name="t", queue="mail")(lambda: None)
        self.heard: list[PressureEvent] = []
        self.app.on_pressure(self.heard.append)

    def pass_seconds(self, seconds: int, *processes: Process) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            for process in processes:
                process.tick()

    def fill(self, count: int) -> None:
        self.app.engine.run(self.app.engine.inspect.purge("mail"))
        if count:
            self.send.delay_many([()] * count)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.state, event.kind) for event in self.heard]

    @property
    def active(self) -> list[str]:
        found = self.app.engine.run(raised(self.app.engine.coordinator, "", self.clock.time()))
        return [alarm.kind for alarms in found.values() for alarm in alarms]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.app.close()


def test_one_of_many_processes_tells_of_a_queue_that_fills(stage: Stage) -> None:
    processes = [Process(stage.app, name) for name in "abc"]
    stage.fill(7)
    stage.pass_seconds(10, *processes)
    assert stage.told == [("raised", "full")]
    assert stage.active == ["full"]
    stage.fill(4)
    stage.pass_seconds(10, *processes)
    assert stage.told == [("raised", "full"), ("cleared", "full")]
    assert stage.active == []


def test_who_takes_over_does_not_ring_again(stage: Stage) -> None:
    leader, other = Process(stage.app, "a"), Process(stage.app, "b")
    stage.fill(8)
    stage.pass_seconds(3, leader, other)
    stage.pass_seconds(30, other)
    assert stage.told == [("raised", "full")]
    stage.fill(0)
    stage.pass_seconds(5, other)
    assert stage.told[-1] == ("cleared", "full")


def test_an_idle_system_writes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    coordinator = type(stage.app.engine.coordinator)
    for name in ("put", "acquire"):
        monkeypatch.setattr(coordinator, name, lambda *args, name=name: written.append(name))
    stage.pass_seconds(20, Process(stage.app, "a"), Process(stage.app, "b"))
    assert written == []


def test_who_may_not_share_state_asks_seldom(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    async def refused(*args: object) -> None:
        asked.append(args)
        raise AccessRefused("no write right on state 'pressure::3'")

    for name in ("get", "put", "acquire"):
        monkeypatch.setattr(type(stage.app.engine.coordinator), name, refused)
    stage.fill(9)
    stage.pass_seconds(120, Process(stage.app, "a"))
    assert len(asked) == 1
    assert caplog.text.count("no write right") == 1


def test_an_old_task_and_one_that_hangs_ring(stage: Stage) -> None:
    process = Process(stage.app, "a")
    stage.fill(1)
    hung = Standing("a pid 7", 1, 1, 400.0, [Run("mail", "t", 400.0)])
    stage.pass_seconds(299, process)
    assert stage.told == []
    process.local = Local(2, [], 1, [hung])
    stage.pass_seconds(4, process)
    assert sorted(stage.told) == [("raised", "age"), ("raised", "stuck_worker")]
    stuck = next(event for event in stage.heard if event.kind == "stuck_worker")
    assert (stuck.subject, stuck.value, stuck.limit) == ("a pid 7", 400.0, 300.0)
    assert "py-spy" in stuck.text


def test_what_is_declared_of_a_task_is_known_to_the_leader() -> None:
    stage = Stage()
    stage.app.task(name="u", queue="mail", expected_time="50ms")(lambda: None)
    process = Process(stage.app, "a")
    times = Times()
    times.add(0.2, 100)
    process.local = Local(2, [Samples([("mail", "u", times)], {})])
    stage.fill(1)
    stage.pass_seconds(10, process)
    assert [(event.kind, event.subject, event.limit) for event in stage.heard] == [("run_time", "u", 0.05)]
    stage.app.close()


def test_a_hook_that_fails_is_logged_and_harms_nobody(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: PressureEvent) -> None:
        raise SystemExit(event.kind)

    stage.app.pressure_hooks.insert(0, broken)
    stage.fill(9)
    stage.pass_seconds(3, Process(stage.app, "a"))
    assert stage.told == [("raised", "full")]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "queue 'mail' is 90% full" in caplog.text


def test_a_hook_that_blocks_holds_up_nothing(stage: Stage) -> None:
    free = threading.Event()
    stage.app.pressure_hooks.insert(0, lambda event: free.wait(60))
    process = Keeper(stage.app, ("mail",), lambda: Local(2, []), "a")
    for count in (9, 0, 9):
        stage.fill(count)
        for _ in range(3):
            stage.clock.advance(1.0)
            stage.app.engine.run(process.tick(stage.clock.monotonic()))
    assert stage.told == []
    free.set()
    process.close()
    assert [state for state, _ in stage.told] == ["raised", "cleared", "raised"]


def test_what_others_wrote_is_not_believed_blindly() -> None:
    for data in (b"", b"\xc1", b"\x81\xa1q\x92\x00\x91", b"\x90"):
        assert read(data, 0.0) == {}


def test_alarms_that_nobody_renews_are_forgotten(stage: Stage) -> None:
    process = Process(stage.app, "a")
    stage.fill(9)
    stage.pass_seconds(int(FRESH) * 2, process)
    assert stage.active == ["full"]
    stage.pass_seconds(int(FRESH) + 2)
    assert stage.active == []


def test_a_process_watches_what_its_app_declares_and_what_it_serves() -> None:
    names = [
        one.name for one in watched([Queue("a"), Queue("b", warn_at=0.9)], ("b", "c", "me@host.direct", "n.to.me"))
    ]
    assert names == ["a", "b", "c"]
