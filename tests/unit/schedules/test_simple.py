"""Intervals, single moments, the sun, and what `read_schedule` makes of what it is given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest

from penstock import ConfigError, crontab, once, schedule, solar
from penstock.schedules import Known, read_schedule

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_an_interval_counts_from_its_anchor() -> None:
    assert schedule(10, anchor=3.0).next_after(0.0) == 3.0
    assert schedule(10, anchor=3.0).next_after(3.0) == 13.0
    assert schedule(10, anchor=1e9).next_after(5.0) == 10.0


def test_a_moment_comes_once() -> None:
    at = once(NOON)
    assert at.next_after(0) == NOON.timestamp()
    assert at.next_after(NOON.timestamp()) is None
    assert str(at) == "once at 2026-11-27 12:00:00 UTC"


def test_the_sun_over_berlin() -> None:
    sunset = solar("sunset", 52.52, 13.4).next_after(datetime(2026, 6, 21, tzinfo=UTC).timestamp())
    assert sunset is not None
    # 21:33 local time, says the almanac.
    assert abs(sunset - datetime(2026, 6, 21, 19, 33, tzinfo=UTC).timestamp()) < 120


def test_events_of_the_sun_follow_each_other_in_order() -> None:
    events = ("dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset", "dusk_civil")
    times = [solar(event, 41.9, 12.5).next_after(datetime(2026, 3, 20, tzinfo=UTC).timestamp()) for event in events]
    assert all(times) and times == sorted(times, key=lambda one: one or 0.0)


def test_days_without_sunrise_are_left_out_in_the_far_north() -> None:
    tick = solar("sunrise", 78.2, 15.6).next_after(datetime(2026, 11, 27, tzinfo=UTC).timestamp())
    assert tick is not None
    assert datetime.fromtimestamp(tick, UTC).strftime("%Y-%m") == "2027-02"


@pytest.mark.parametrize("lon", [-179.0, -120.0, 0.0, 120.0, 179.0])
def test_every_day_has_one_sunset_wherever_midnight_is(lon: float) -> None:
    moment, ticks = NOON.timestamp(), []
    for _ in range(30):
        tick = solar("sunset", 10.0, lon).next_after(moment)
        assert tick is not None
        ticks.append(tick)
        moment = tick
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    assert all(86_000 < gap < 86_800 for gap in gaps)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (30, schedule(30.0)),
        (timedelta(minutes=1), schedule(60.0)),
        (NOON, once(NOON)),
        (NOON.replace(tzinfo=None), once(NOON - timedelta(hours=1))),
        ("0 4 * * mon", crontab(0, 4, "mon", tz="Europe/Berlin")),
        ("*/5 * * * *", crontab("*/5", tz="Europe/Berlin")),
        ("every 10 minutes", schedule(600.0)),
        (crontab(0, 4), crontab(0, 4, tz="Europe/Berlin")),
        (crontab(0, 4, tz="UTC"), crontab(0, 4, tz="UTC")),
    ],
)
def test_what_is_meant(given: object, expected: object) -> None:
    assert read_schedule(given, "Europe/Berlin") == expected  # type: ignore[arg-type]  # any of what it takes


@pytest.mark.parametrize("given", [None, True, [], {}, object(), 0, -1, float("nan"), float("inf"), "often", ""])
def test_what_means_nothing_is_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        read_schedule(given, "UTC")  # type: ignore[arg-type]  # the mistake that is tested


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (schedule, (0.01,)),
        (schedule, (1e12,)),
        (schedule, (5, float("nan"))),
        (once, (datetime(2026, 1, 1),)),
        (once, (NOON, "Europe/Berlin")),
        (once, (-1.0,)),
        (solar, ("moonrise", 0, 0)),
        (solar, ("sunset", 91, 0)),
        (solar, ("sunset", 0, float("nan"))),
    ],
)
def test_what_is_wrong_is_refused(kind: Callable[..., object], given: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError):
        kind(*given)


@pytest.mark.parametrize(
    "plan", [crontab(5, "*/2", tz="Asia/Tokyo"), schedule(7.5, 3.0), solar("sunset", 1, 2), once(5.0)]
)
def test_the_stored_form_is_the_same_again(plan: Known) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Known) == plan


def test_a_hostile_stored_form_is_refused() -> None:
    for data in ({"type": "crontab", "minute": "61"}, {"type": "every", "run_every": 0}, {"type": "os.system"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=Known)
