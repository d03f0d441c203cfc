"""A beat with keys signs its ticks, and publishes none of a schedule that somebody else has put into the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import Penstock, SignatureError
from penstock.beat.beat import Beat
from penstock.beat.stored import Record, Timetables
from penstock.message import Message, pack
from penstock.schedules import read_schedule
from tests import keys
from tests.unit.beat.stage import Machines, WallClock, published, sharing, times

KEY = keys.pem(keys.private())


def make_app(**settings: Any) -> Penstock:
    schedule = {"code": {"task": "tick", "schedule": 3600, "args": ["code"]}}
    app = Penstock("app", broker="memory://", clock=WallClock(), beat_schedule=schedule, **settings)

    @app.task(name="tick")
    def tick(name: str) -> None: ...

    return app


@pytest.fixture
def app() -> Iterator[Penstock]:
    app = make_app(security_key=KEY)
    yield app
    app.close()


def machines(app: Penstock) -> Machines:
    assert isinstance(app.clock, WallClock)
    made = Machines(app.clock, Beat(app))
    made.run(0.5)
    return made


def change(app: Penstock, name: str, decide: Callable[[Record], Record]) -> None:
    """As somebody does who has the broker's password."""

    def changed(name: str, there: Record | None) -> Record:
        assert there is not None
        return decide(there)

    app.engine.run(Timetables(app.engine.coordinator, "beat::app").change([name], changed))


def waiting(app: Penstock) -> list[Message]:
    peeked = [one.message for one in app.engine.run(app.engine.inspect.peek("default", 100))]
    return [message for message in peeked if message is not None]


def test_ticks_are_signed_also_of_what_was_added(app: Penstock) -> None:
    beat = machines(app)
    app.timetable.add("new", 1800, app.tasks["tick"].s("new"))
    app.timetable.pause("new")
    app.timetable.resume("new")
    beat.run(3700)
    app.timetable.trigger("new")
    app.timetable.trigger("code")
    trust = app.pipeline.trust
    assert trust is not None
    bodies = [trust.accepted(message, message.id or "") for message in waiting(app)]
    assert sorted(bodies) == sorted([b'[["new"],{}]'] * 3 + [b'[["code"],{}]'] * 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("message", pack(Message(1, "evil", b"[[],{}]"))),
        ("schedule", read_schedule(1, "UTC")),
        ("name", "other"),
        ("catch_up", "all"),
        ("jitter", 5.0),
        ("signed", b""),
        ("signed", b"\xc1"),
        ("origin", "app"),
    ],
    ids=["call", "times", "name", "catch-up", "jitter", "unsigned", "damaged", "origin"],
)
def test_what_was_changed_is_left_out(app: Penstock, field: str, value: Any) -> None:
    app.timetable.add("new", 10, app.tasks["tick"].s("new"))
    change(app, "new", lambda there: replace(there, **{field: value}))
    machines(app).run(60)
    assert not published(app)
    if field != "name" and field != "origin":
        with pytest.raises(SignatureError):
            app.timetable.trigger("new")


def test_a_strangers_schedule_is_left_out_and_may_be_added_rightly(
    app: Penstock, caplog: pytest.LogCaptureFixture
) -> None:
    for stranger in (make_app(), make_app(security_key=keys.pem(keys.private()))):
        sharing(app, stranger)
        stranger.timetable.add("new", 10, stranger.tasks["tick"].s("new"))
        beat = machines(app)
        beat.run(60)
        assert not published(app)
        assert "schedule new cannot be read, and is left out" in caplog.text
        beat.beats[0].stop()
        app.timetable.remove("new")
    stranger.timetable.add("new", 10, stranger.tasks["tick"].s("new"))
    app.timetable.add("new", 10, app.tasks["tick"].s("new"))
    beat = machines(app)
    beat.run(15)
    assert len(times(published(app))) == 1


def test_while_signing_is_introduced_unsigned_schedules_count() -> None:
    app = make_app(security_key=KEY, security_accept_unsigned=True)
    plain = make_app()
    sharing(app, plain)
    plain.timetable.add("new", 10, plain.tasks["tick"].s("new"))
    machines(app).run(15)
    assert len(published(app)) == 1
    app.close()
