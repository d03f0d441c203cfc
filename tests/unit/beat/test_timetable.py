"""The timetable that is changed while a beat leads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock import ConfigError, Penstock, StoreError, solar
from penstock.beat import stored
from penstock.beat.beat import Beat
from penstock.beat.stored import Timetables
from tests.unit.beat.stage import START, Machines, WallClock, drain, published, times


@pytest.fixture
def app() -> Iterator[Penstock]:
    app = Penstock(
        "app",
        broker="memory://",
        clock=WallClock(),
        beat_schedule={"code": {"task": "tick", "schedule": 3600, "kwargs": {"name": "code"}}},
    )

    @app.task(name="tick")
    def tick(name: str) -> None: ...

    yield app
    app.close()


@pytest.fixture
def machines(app: Penstock) -> Machines:
    assert isinstance(app.clock, WallClock)
    machines = Machines(app.clock, Beat(app))
    machines.run(0.5)
    return machines


def test_what_is_added_is_in_force_within_a_second_or_two(app: Penstock, machines: Machines) -> None:
    app.timetable.add("new", 10, app.tasks["tick"].s("new"))
    machines.run(31)
    assert times(published(app)) == ["120010Z", "120020Z", "120030Z"]


def test_what_is_paused_rests_and_is_not_caught_up(app: Penstock, machines: Machines) -> None:
    app.timetable.add("new", 10, app.tasks["tick"].s("new"), catch_up="all")
    machines.run(11)
    app.timetable.pause("new")
    machines.run(30)
    assert times(published(app)) == ["120010Z"]
    app.timetable.resume("new")
    machines.run(10)
    assert times(published(app)) == ["120010Z", "120050Z"]


def test_what_is_removed_is_gone(app: Penstock, machines: Machines) -> None:
    app.timetable.add("new", 10, app.tasks["tick"].s("new"))
    machines.run(11)
    app.timetable.remove("new")
    machines.run(30)
    assert times(published(app)) == ["120010Z"]
    assert [one.name for one in app.timetable.list()] == ["code"]


def test_what_is_triggered_is_published_besides(app: Penstock, machines: Machines) -> None:
    app.timetable.pause("code")
    result = app.timetable.trigger("code")
    assert published(app) == [result.id]
    engine = app.engine
    (peeked,) = engine.run(engine.inspect.peek("default"))
    assert peeked.message is not None
    assert app.tasks["tick"].arguments(peeked.message.body) == (("code",), {})
    assert peeked.message.sent == app.clock.time()


def test_a_successor_has_what_was_added(app: Penstock, machines: Machines) -> None:
    app.timetable.add("new", 10, app.tasks["tick"].s("new"))
    machines.beats = [Beat(app)]
    machines.run(25)
    assert len(drain(app)) == 2


def test_the_list_tells_what_is_next(app: Penstock, machines: Machines) -> None:
    app.timetable.add("new", "at 5:03 pm every day in Asia/Tokyo", app.tasks["tick"].s("new"), jitter=10)
    code, new = app.timetable.list()
    assert (code.name, code.origin, code.next, code.schedule) == ("code", "app", START + 3600, "every 3600 s")
    assert (new.name, new.origin, new.schedule) == ("new", "added", "3 17 * * * Asia/Tokyo")
    assert new.next is not None
    assert START + 20 * 3600 + 180 <= new.next < START + 20 * 3600 + 190
    leader = app.timetable.leader()
    assert leader is not None
    assert leader.holder == machines.beats[0]._holder


def test_before_any_beat_has_led_the_code_is_listed_and_can_be_paused(app: Penstock) -> None:
    assert app.timetable.leader() is None
    assert [one.name for one in app.timetable.list()] == ["code"]
    app.timetable.pause("code")
    assert [one.paused for one in app.timetable.list()] == [True]


def test_two_of_one_name_are_refused_and_the_same_again_is_not(app: Penstock) -> None:
    tick = app.tasks["tick"]
    app.timetable.add("new", 10, tick.s("new"))
    app.timetable.add("new", 10, tick.s("new"))
    with pytest.raises(ConfigError, match="two schedules are named 'new': 'every 10 s' of tick"):
        app.timetable.add("new", 20, tick.s("new"))
    with pytest.raises(ConfigError, match="'code' is in the app's code"):
        app.timetable.add("code", 20, tick.s("new"))
    with pytest.raises(ConfigError, match="remove it there, or pause it"):
        app.timetable.remove("code")
    with pytest.raises(ConfigError, match="there is no schedule 'nothing'"):
        app.timetable.pause("nothing")


def test_what_can_never_run_is_refused(app: Penstock) -> None:
    tick = app.tasks["tick"]
    with pytest.raises(ConfigError, match="never comes again"):
        app.timetable.add("past", "on 2020-01-01 at 12:00", tick.s("new"))
    with pytest.raises(TypeError):
        app.timetable.add("misfit", 10, tick.s(1, 2, 3))

    class Own:
        def next_after(self, moment: float) -> float:
            return moment + 1

    with pytest.raises(ConfigError, match="known to the app's code only"):
        app.timetable.add("own", Own(), tick.s("new"))
    app.timetable.add("sun", solar("sunset", 52.5, 13.4), tick.s("new"))
    assert [one.schedule for one in app.timetable.list()] == ["every 3600 s", "sunset at 52.5, 13.4"]


def test_the_timetable_has_a_bound(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST_IN_SHARD", 1)
    with pytest.raises(ConfigError, match="the timetable is full"):
        for number in range(100):
            app.timetable.add(f"s{number}", 10, app.tasks["tick"].s("x"))


def test_a_stored_timetable_that_cannot_be_read_is_said(app: Penstock) -> None:
    shard = stored._shard_of("code")
    engine = app.engine
    engine.run(engine.coordinator.put(f"beat::app:lines:{shard}", b"\xc1"))
    with pytest.raises(StoreError, match=f"beat::app:lines:{shard} .* is no part of a timetable"):
        app.timetable.list()


def test_what_another_beat_wrote_too_late_is_put_right(app: Penstock, machines: Machines) -> None:
    """It has other code, was frozen while it began to lead, and woke up."""
    engine = app.engine
    engine.run(Timetables(engine.coordinator, "beat::app").change(["code"], lambda name, there: None))
    machines.run(3700)
    assert [one.name for one in app.timetable.list()] == ["code"]
    assert times(published(app)) == ["130000Z"]


def test_changes_of_two_do_not_undo_each_other(app: Penstock) -> None:
    """The second reads before the first has written, and writes after it."""
    engine, tick = app.engine, app.tasks["tick"]
    app.timetable.add("one", 10, tick.s("x"))
    names = [name for name in map(str, range(1000)) if stored._shard_of(name) == stored._shard_of("one")][:2]
    tables = Timetables(engine.coordinator, "beat::app")
    (record,) = engine.run(tables.read()).values()
    raced = []

    def decide(name: str, there: stored.Record | None) -> stored.Record:
        if not raced:
            raced.append(name)
            app.timetable.add(names[1], 10, tick.s("x"))
        return stored.Record(name, *(getattr(record, field) for field in record.__struct_fields__[1:]))

    engine.run(tables.change([names[0]], decide))
    assert {one.name for one in app.timetable.list()} == {"code", "one", *names}
