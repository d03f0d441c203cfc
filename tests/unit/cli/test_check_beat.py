"""What `penstock doctor` says of periodic tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import Penstock
from penstock.beat import timetable
from penstock.beat.beat import Beat
from penstock.broker import Features
from penstock.cli.check_beat import check_beat
from penstock.cli.findings import Level
from tests.unit.beat.stage import WallClock


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def app(clock: WallClock) -> Iterator[Penstock]:
    app = Penstock("app", broker="memory://", clock=clock)
    app.task(name="tick")(lambda: None)
    yield app
    app.close()


def test_without_schedules_nothing_is_said(app: Penstock) -> None:
    assert list(check_beat(app)) == []


def test_whether_a_beat_leads_is_said(app: Penstock, clock: WallClock) -> None:
    app.add_periodic_task(60, app.tasks["tick"].s())
    (before,) = check_beat(app)
    assert (before.level, before.text) == (Level.WARNING, "1 schedules, and no beat has ever led")
    Beat(app).turn()
    (now,) = check_beat(app)
    assert now.level is Level.OK
    clock.advance(3600)
    (silent,) = check_beat(app)
    assert (silent.level, silent.text) == (Level.WARNING, "1 schedules, and nothing was heard of a beat for 60 min")


def test_arguments_that_do_not_fit_are_found(app: Penstock) -> None:
    app.add_periodic_task(60, app.tasks["tick"].s(1), name="wrong")
    (finding,) = check_beat(app)
    assert finding.level is Level.ERROR
    assert finding.text.startswith("schedule 'wrong': ")


def test_an_engine_that_cannot_is_found_if_it_is_asked_to(app: Penstock, monkeypatch: Any) -> None:
    real = timetable.check_engine

    def refuse(features: Features) -> None:
        real(replace(features, coordination=False))

    monkeypatch.setattr(timetable, "check_engine", refuse)
    assert list(check_beat(app)) == []
    app.add_periodic_task(60, app.tasks["tick"].s())
    (finding,) = check_beat(app)
    assert (finding.level, finding.what) == (Level.ERROR, "beat")
    assert "no elections" in finding.text
