"""Beats that lead, stand by and take over, in time that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import Broadcast, BrokerUnavailable, ConfigError, Penstock, Queue, Signature, Unsupported, crontab
from penstock.beat.beat import Beat
from penstock.beat.place import check_engine
from tests.unit.beat.stage import START, Machines, WallClock, drain, published, sharing, times, warnings
from tests.unit.fake_engine import FEATURES


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def apps() -> Iterator[list[Penstock]]:
    made: list[Penstock] = []
    yield made
    for app in made:
        app.close()


@pytest.fixture
def make(clock: WallClock, apps: list[Penstock]) -> Any:
    def make(schedule: Any = 10.0, clock: WallClock = clock, settings: Any = None, **entry: Any) -> Penstock:
        entry = {"task": "tick", "schedule": schedule, **entry}
        app = Penstock("app", broker="memory://", clock=clock, beat_schedule={"s": entry}, **(settings or {}))
        app.task(name="tick")(lambda: None)
        apps.append(app)
        return app

    return make


def test_ticks_are_published_when_they_are_due(make: Any, clock: WallClock) -> None:
    app = make(60)
    Machines(clock, Beat(app)).run(3601)
    assert published(app) == [
        f"beat::app:s@20261127T{12 + minute // 60:02}{minute % 60:02}00Z" for minute in range(1, 61)
    ]


def test_a_tick_is_not_published_before_its_time(make: Any, clock: WallClock) -> None:
    app = make(60)
    machines = Machines(clock, Beat(app))
    machines.run(59.9)
    assert published(app) == []
    machines.run(0.2)
    assert len(published(app)) == 1


def test_one_of_many_leads_and_another_takes_over_within_the_lease(make: Any, clock: WallClock) -> None:
    app = make(1, catch_up="all")
    beats = [Beat(app) for _ in range(4)]
    machines = Machines(clock, *beats)
    machines.run(30)
    machines.beats.remove(beats[0])  # it is dead, or frozen
    machines.run(11.5)
    assert len(times(published(app))) == 41
    machines.run(9)
    assert times(published(app)) == [f"1200{second:02}Z" for second in range(1, 51)]


def test_a_stopped_beat_lets_another_lead_at_once(make: Any, clock: WallClock) -> None:
    app = make(1)
    first, second = Beat(app), Beat(app)
    machines = Machines(clock, first, second)
    machines.run(5)
    first._end()
    machines.beats.remove(first)
    machines.run(5)
    assert times(published(app)) == [f"1200{second:02}Z" for second in range(1, 11)]


def test_a_beat_whose_lease_ended_unnoticed_publishes_nothing(make: Any, clock: WallClock, caplog: Any) -> None:
    """Its monotonic clock stood still, as in a machine that was suspended: it believes that its lease is fresh."""
    suspended = WallClock()
    old_app, app = make(10, suspended, catch_up="all"), make(10, catch_up="all")
    sharing(app, old_app)
    old, new = Beat(old_app), Beat(app)
    old_machine, machine = Machines(suspended, old), Machines(clock, new)
    old_machine.run(25)
    clock.advance(45)
    machine.run(10)
    drained = drain(app)
    suspended.wall = clock.wall + 10
    assert old.turn() == 0.0  # deposed
    assert published(app) == []
    assert times(drained) == ["120010Z", "120020Z", "120030Z", "120040Z", "120050Z"]
    assert any("no longer leading: the broker says" in line for line in warnings(caplog.records))


def test_a_tick_that_has_run_and_is_forgotten_is_not_published_again(make: Any, clock: WallClock) -> None:
    app = make(0.5, catch_up="all", options={"ignore_result": True})
    first = Beat(app)
    machines = Machines(clock, first)
    machines.run(10.3)
    done = drain(app)
    # It dies before it has noted its last ticks: the next begins before them.
    machines.beats = [Beat(app)]
    machines.run(12)
    again = drain(app)
    assert not set(done) & set(again)
    assert len(done) + len(again) == 44


@pytest.mark.parametrize(
    ("policy", "late", "expected"),
    [
        ("none", None, []),
        ("none", 7200, ["150000Z"]),
        ("latest", None, ["150000Z"]),
        ("latest", 60, []),
        ("all", 7200, ["133000Z", "140000Z", "143000Z", "150000Z"]),
        ("all", None, ["143000Z", "150000Z"]),
    ],
)
def test_after_a_pause_each_policy_has_its_way(
    make: Any, clock: WallClock, policy: str, late: float | None, expected: list[str]
) -> None:
    app = make(1800, catch_up=policy, max_late=late)
    machines = Machines(clock, Beat(app))
    machines.run(1801)
    assert times(drain(app)) == ["123000Z"]
    clock.advance(9000 + 60)  # nobody runs until 15:01:01
    machines.beats = [Beat(app)]
    machines.run(1)
    assert times(published(app)) == expected
    machines.run(1800)
    assert times(published(app)) == [*expected, "153000Z"]


def test_nothing_is_caught_up_for_the_first_beat_ever(make: Any, clock: WallClock) -> None:
    app = make(crontab(0, 3))
    Machines(clock, Beat(app)).run(3600)
    assert published(app) == []


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (datetime(2026, 3, 29, 0, tzinfo=UTC), ["20260329T010000Z", "20260330T003000Z"]),
        (datetime(2026, 10, 25, 0, tzinfo=UTC), ["20261025T003000Z", "20261026T013000Z"]),
    ],
)
def test_a_day_whose_clocks_are_changed_has_one_run(make: Any, start: datetime, expected: list[str]) -> None:
    clock = WallClock(start.timestamp())
    app = make(crontab(30, 2, tz="Europe/Berlin"), clock)
    Machines(clock, Beat(app)).run(26 * 3600)
    assert [one.rpartition("@")[2] for one in published(app)] == expected


def test_a_clock_that_jumps_ten_hours_forward(make: Any, clock: WallClock, caplog: Any) -> None:
    app = make(60)
    machines = Machines(clock, Beat(app))
    machines.run(61)
    clock.wall += 36_000
    machines.run(60)
    assert times(published(app)) == ["120100Z", "220100Z", "220200Z"]
    assert any("skipped" in line for line in warnings(caplog.records))


def test_a_clock_that_is_set_back_ten_hours_begins_anew(make: Any, clock: WallClock, caplog: Any) -> None:
    app = make(60)
    machines = Machines(clock, Beat(app))
    machines.run(121)
    clock.wall -= 36_000
    machines.run(120)
    clock.wall += 36_000
    machines.run(61)
    assert times(published(app)) == ["120100Z", "120200Z", "020300Z~1", "020400Z~1", "120400Z~1", "120500Z~1"]
    assert any("set back by 36000 s" in line for line in warnings(caplog.records))


def test_a_clock_that_is_set_back_a_little_repeats_nothing(make: Any, clock: WallClock) -> None:
    app = make(10)
    machines = Machines(clock, Beat(app))
    machines.run(31)
    clock.wall -= 25
    machines.run(30)
    assert times(published(app)) == ["120010Z", "120020Z", "120030Z"]
    machines.run(10)
    assert times(published(app)) == ["120010Z", "120020Z", "120030Z", "120040Z"]


@pytest.mark.parametrize(("behind", "expected"), [(300, []), (7200, ["1003", "1004"])])
def test_a_successor_whose_clock_is_behind(make: Any, clock: WallClock, behind: float, expected: list[str]) -> None:
    app = make(60)
    machines = Machines(clock, Beat(app))
    machines.run(121)
    before = published(app)
    clock.advance(20)
    late = WallClock(clock.wall - behind)
    other = make(60, late)
    sharing(app, other)
    app.engine.run(app.engine.coordinator.resign("beat::app", machines.beats[0]._holder))
    Machines(late, Beat(other)).run(60 if behind == 300 else 100)
    new = [one for one in published(app) if one not in before]
    assert [time[:4] for time in times(new)] == expected


def test_a_full_queue_makes_the_newest_tick_wait(make: Any, clock: WallClock, caplog: Any) -> None:
    app = make(60, settings={"task_queues": [Queue("default", max_length=2)]})
    machines = Machines(clock, Beat(app))
    machines.run(600)
    assert times(published(app)) == ["120100Z", "120200Z"]
    said = warnings(caplog.records)
    assert "queue default takes tasks again" not in said
    assert sum("queue default is full" in line for line in said) == 1
    machines.beats = [Beat(app)]  # a successor knows what waits
    machines.run(30)
    drain(app)
    machines.run(20)
    assert times(published(app)) == ["121000Z"]
    assert "queue default takes tasks again" in warnings(caplog.records)


def test_a_full_queue_makes_all_ticks_wait_if_the_policy_is_all(make: Any, clock: WallClock) -> None:
    app = make(60, settings={"task_queues": [Queue("default", max_length=2)]}, catch_up="all")
    machines = Machines(clock, Beat(app))
    machines.run(330)
    found = []
    for _ in range(4):
        found += drain(app)
        machines.run(6)
    assert times(found) == ["120100Z", "120200Z", "120300Z", "120400Z", "120500Z"]


def test_a_full_queue_does_not_hold_up_another(make: Any, clock: WallClock) -> None:
    app = make(60, settings={"task_queues": [Queue("default", max_length=1), Queue("mail")]})
    app.add_periodic_task(60, app.tasks["tick"].s(), name="other", queue="mail")
    Machines(clock, Beat(app)).run(301)
    assert len(published(app)) == 1
    assert len(published(app, "mail")) == 5


def test_ticks_wait_for_a_broker_that_is_away(make: Any, clock: WallClock, monkeypatch: Any) -> None:
    app = make(10, catch_up="all")
    machines = Machines(clock, Beat(app))
    machines.run(15)
    publish = app.client.publish

    async def fail(messages: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(app.client, "publish", fail)
    machines.run(30)
    monkeypatch.setattr(app.client, "publish", publish)
    machines.run(12)
    assert times(published(app)) == [f"1200{second}0Z" for second in range(1, 6)]


def test_a_tick_that_cannot_be_published_is_dropped_alone(make: Any, clock: WallClock, caplog: Any) -> None:
    app = make(60)
    app.add_periodic_task(60, app.tasks["tick"].s(), name="other")

    def refuse(messages: Any) -> Any:
        if any(message.id.startswith("beat::app:other") for message in messages):
            raise RuntimeError("not this one")
        return messages

    app.publishing = (refuse,)
    Machines(clock, Beat(app)).run(121)
    assert times(published(app)) == ["120100Z", "120200Z"]
    assert any("schedule other: a tick cannot be published" in line for line in warnings(caplog.records))


def test_a_schedule_of_ones_own_that_fails_is_left_out(make: Any, clock: WallClock, caplog: Any) -> None:
    class Raises:
        def next_after(self, moment: float) -> float:
            if moment:
                raise ZeroDivisionError("bad")
            return 1.0

    class RaisesLater:
        def next_after(self, moment: float) -> float:
            return moment // 60 * 60 + 60 if moment < START + 60 else 1 / 0

    class StandsStill:
        def next_after(self, moment: float) -> float:
            return moment or 1.0

    app = make(60)
    for plan in (Raises(), RaisesLater(), StandsStill()):
        app.add_periodic_task(plan, app.tasks["tick"].s(), name=type(plan).__name__)
    Machines(clock, Beat(app)).run(181)
    assert [one for one in published(app) if ":s@" in one] == [
        f"beat::app:s@20261127T120{minute}00Z" for minute in (1, 2, 3)
    ]
    for name in ("Raises", "RaisesLater", "StandsStill"):
        assert sum(f"schedule {name} failed" in line for line in warnings(caplog.records)) == 1


def test_what_the_code_says_otherwise_begins_now_and_stays_paused(make: Any, clock: WallClock) -> None:
    app = make(crontab("*/30"))
    Machines(clock, Beat(app)).run(1)
    app.timetable.pause("s")
    clock.advance(7200)
    changed = make(crontab("*/20"))
    sharing(app, changed)
    machines = Machines(clock, Beat(changed))
    machines.run(1)
    assert published(app) == []
    changed.timetable.resume("s")
    machines.run(1200)
    assert times(published(app)) == ["142000Z"]


def test_a_schedule_of_ones_own_goes_on_in_the_next_process(make: Any, clock: WallClock) -> None:
    class EveryTen:
        def next_after(self, moment: float) -> float:
            return moment // 10 * 10 + 10

    app = make(EveryTen())
    Machines(clock, Beat(app)).run(1)
    clock.advance(60)
    again = make(EveryTen())
    sharing(app, again)
    Machines(clock, Beat(again)).run(1)
    assert times(published(again)) == ["120100Z"]  # it is the same, and has missed it


def test_a_schedule_that_was_changed_has_no_past(make: Any, clock: WallClock) -> None:
    app = make(crontab("*/30"))
    Machines(clock, Beat(app)).run(1)
    clock.advance(7200)
    changed = make(crontab("*/20"))
    sharing(app, changed)
    machines = Machines(clock, Beat(changed))
    machines.run(60)
    assert published(app) == []
    machines.run(1200)
    assert times(published(app)) == ["142000Z"]


def test_what_is_no_longer_in_the_code_is_gone(make: Any, clock: WallClock, apps: list[Penstock]) -> None:
    app = make(60)
    Machines(clock, Beat(app)).run(61)
    clock.advance(20)
    bare = Penstock("app", broker="memory://", clock=clock)
    apps.append(bare)
    sharing(app, bare)
    Machines(clock, Beat(bare)).run(600)
    assert times(published(app)) == ["120100Z"]
    assert bare.timetable.list() == []


def test_arguments_and_times_of_the_call_go_with_each_tick(make: Any, clock: WallClock) -> None:
    app = make(60, options={"countdown": 5, "expires": 30, "priority": 7})
    Machines(clock, Beat(app)).run(121)
    engine = app.engine
    first, second = [one.message for one in engine.run(engine.inspect.peek("default", 5))]
    assert first.priority == 7
    assert (first.eta, first.expires) == pytest.approx((START + 65, START + 90), abs=0.01)
    assert (second.eta, second.expires) == pytest.approx((START + 125, START + 150), abs=0.01)


def test_an_engine_without_fences_is_refused() -> None:
    with pytest.raises(Unsupported, match="no Fence guards and no Dedup guards"):
        check_engine(FEATURES)


def test_arguments_that_do_not_fit_are_said_before_it_starts(make: Any) -> None:
    app = make(60, args=(1, 2, 3))
    with pytest.raises(ConfigError, match="schedule 's': "):
        Beat(app)


def test_a_tick_goes_to_one_queue(clock: WallClock, apps: list[Penstock]) -> None:
    app = Penstock("app", broker="memory://", clock=clock, task_queues=[Broadcast("all")])
    apps.append(app)
    app.add_periodic_task(60, Signature("tick"), name="s", queue="all")
    with pytest.raises(ConfigError, match="schedule 's': a tick is one task, and all stands for several queues"):
        Beat(app)


def test_a_name_that_was_given_at_run_time_to_another_is_refused(make: Any, apps: list[Penstock]) -> None:
    app = make(60)
    bare = Penstock("app", broker="memory://", clock=app.clock)
    apps.append(bare)
    sharing(app, bare)
    bare.timetable.add("s", "every 5 minutes", app.tasks["tick"].s())
    with pytest.raises(ConfigError, match="two schedules are named 's'"):
        Beat(app).run()
