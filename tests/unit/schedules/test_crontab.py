"""Celery's fields, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import ConfigError, crontab


def moment(*wall: int) -> float:
    return datetime(*wall, tzinfo=UTC).timestamp()  # type: ignore[arg-type]  # six numbers


def following(cron: crontab, *wall: int) -> str:
    found = cron.next_after(moment(*wall))
    assert found is not None
    return datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        (crontab(), "2026-11-27 22:18"),
        (crontab(minute=0), "2026-11-27 23:00"),
        (crontab(minute=17), "2026-11-27 23:17"),
        (crontab(minute=0, hour=0), "2026-11-28 00:00"),
        (crontab(minute=0, hour="*/3"), "2026-11-28 00:00"),
        (crontab(minute=0, hour="8-17"), "2026-11-28 08:00"),
        (crontab(minute="*/15", hour="22-3"), "2026-11-27 22:30"),
        (crontab(0, 0, day_of_week="sunday"), "2026-11-29 00:00"),
        (crontab(0, 0, day_of_week="fri-mon"), "2026-11-28 00:00"),
        (crontab(0, 0, day_of_week="tue,thu"), "2026-12-01 00:00"),
        (crontab(0, 0, day_of_week=7), "2026-11-29 00:00"),
        (crontab(0, 0, day_of_month="2-31/10"), "2026-12-02 00:00"),
        (crontab(0, 0, day_of_month=31), "2026-12-31 00:00"),
        (crontab(0, 0, month_of_year="jan"), "2027-01-01 00:00"),
        (crontab(0, 0, day_of_month=29, month_of_year=2), "2028-02-29 00:00"),
        (crontab([0, 30], {6, 7}), "2026-11-28 06:00"),
        (crontab(minute=0, hour="*/3,9-17"), "2026-11-28 00:00"),
    ],
    ids=str,
)
def test_the_next_time(cron: crontab, expected: str) -> None:
    assert following(cron, 2026, 11, 27, 22, 17) == expected


def test_day_of_month_and_of_week_must_both_fit_as_in_celery() -> None:
    assert following(crontab(0, 0, "fri", 13), 2026, 11, 27, 22, 17) == "2027-08-13 00:00"


def test_a_leap_day_on_one_weekday_is_found_across_a_century_without_one() -> None:
    assert following(crontab(0, 0, "mon", 29, 2), 2072, 3, 1, 0, 0) == "2112-02-29 00:00"


def test_it_is_after_the_moment_not_at_it() -> None:
    cron = crontab(0, 12)
    assert cron.next_after(moment(2026, 1, 1, 12, 0)) == moment(2026, 1, 2, 12, 0)
    assert cron.next_after(moment(2026, 1, 1, 12, 0) - 1e-3) == moment(2026, 1, 1, 12, 0)


def test_from_a_cron_line() -> None:
    line = crontab.from_string("0 4 1 * mon-fri")
    assert line == crontab(minute=0, hour=4, day_of_month=1, day_of_week="mon-fri")
    assert str(line) == "0 4 1 * mon-fri"


def test_the_end_of_the_calendar_is_the_end() -> None:
    assert crontab(0, 0).next_after(253_402_300_799.0) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"minute": 60}, "'60' is not a number from 0 to 59"),
        ({"hour": 24}, "'24' is not a number from 0 to 23"),
        ({"day_of_week": "funday"}, "'funday' is not a number from 0 to 6, or a name"),
        ({"month_of_year": 0}, "'0' is not a number from 1 to 12"),
        ({"minute": "*/0"}, "a step must be at least 1"),
        ({"minute": "*-5"}, "has no end"),
        ({"minute": ""}, "'' is none of"),
        ({"minute": "1;2"}, "'1;2' is none of"),
        ({"minute": []}, "must be a number, text"),
        ({"minute": 1.5}, "must be a number.*1.5"),
        ({"minute": True}, "must be a number.*True"),
        ({"minute": "1," * 1000}, "over 500 characters"),
        ({"tz": "Europe/Berlim"}, "did you mean 'Europe/Berlin'"),
        ({"tz": "../../etc/passwd"}, "there is no time zone '../../etc"),
        ({"tz": "a\0b"}, "there is no time zone 'a"),
        ({"day_of_month": 30, "month_of_year": 2}, "can never run: there is no day 30 in month 2"),
        ({"day_of_month": 31, "month_of_year": "4,6,9,11"}, "can never run: there is no day 31"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        crontab(**given)


@pytest.mark.parametrize("line", ["0 4 * *", "", "0 4 * * * root"])
def test_a_cron_line_has_five_fields(line: str) -> None:
    with pytest.raises(ConfigError, match="a cron line has 5 fields"):
        crontab.from_string(line)
