"""A skipped time is the moment after the gap, a repeated one its first; every hour of the day is bound to none."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from penstock import ConfigError, crontab, once

DAILY = [
    # Berlin: an hour. 02:30 is skipped in March, and comes twice in October.
    ("Europe/Berlin", (30, 2), (2026, 3, 28), ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
    ("Europe/Berlin", (30, 2), (2026, 10, 24), ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
    # Lord Howe: half an hour. 02:00 to 02:30 is skipped in October, 01:30 to 02:00 comes twice in April.
    ("Australia/Lord_Howe", (15, 2), (2026, 10, 3), ["03 02:15 +1030", "04 02:30 +1100", "05 02:15 +1100"]),
    ("Australia/Lord_Howe", (45, 1), (2026, 4, 4), ["04 01:45 +1100", "05 01:45 +1100", "06 01:45 +1030"]),
    # Chatham: at 02:45, and 45 minutes off the full hour.
    ("Pacific/Chatham", (0, 3), (2026, 9, 26), ["26 03:00 +1245", "27 03:45 +1345", "28 03:00 +1345"]),
    ("Pacific/Chatham", (0, 3), (2026, 4, 4), ["04 03:00 +1345", "05 03:00 +1345", "06 03:00 +1245"]),
    # Troll: two hours.
    ("Antarctica/Troll", (30, 1), (2026, 3, 28), ["28 01:30 +0000", "29 03:00 +0200", "30 01:30 +0200"]),
    ("Antarctica/Troll", (30, 2), (2026, 3, 28), ["28 02:30 +0000", "29 03:00 +0200", "30 02:30 +0200"]),
    ("Antarctica/Troll", (30, 1), (2026, 10, 24), ["24 01:30 +0200", "25 01:30 +0200", "26 01:30 +0000"]),
    # Samoa left out a whole day.
    ("Pacific/Apia", (0, 12), (2011, 12, 29), ["29 12:00 -1000", "31 00:00 +1400", "31 12:00 +1400"]),
]


def walls(cron: crontab, zone: str, start: tuple[int, ...], count: int) -> list[str]:
    tz = ZoneInfo(zone)
    moment: float | None = datetime(*start, tzinfo=tz).timestamp()  # type: ignore[arg-type]  # three numbers or more
    found = []
    for _ in range(count):
        assert moment is not None
        moment = cron.next_after(moment)
        assert moment is not None
        found.append(datetime.fromtimestamp(moment, tz).strftime("%d %H:%M %z"))
    return found


@pytest.mark.parametrize(("zone", "at", "start", "expected"), DAILY)
def test_daily(zone: str, at: tuple[int, int], start: tuple[int, ...], expected: list[str]) -> None:
    assert walls(crontab(*at, tz=zone), zone, start, 3) == expected


def test_many_skipped_times_are_one_moment() -> None:
    cron = crontab("*/10", "2,3", tz="Europe/Berlin")
    found = walls(cron, "Europe/Berlin", (2026, 3, 29), 3)
    assert found == ["29 03:00 +0200", "29 03:10 +0200", "29 03:20 +0200"]


def test_every_hour_goes_on_in_the_repeated_one() -> None:
    found = walls(crontab("*/30", tz="Europe/Berlin"), "Europe/Berlin", (2026, 10, 25, 1, 30), 6)
    assert [one[3:] for one in found] == [
        "02:00 +0200", "02:30 +0200", "02:00 +0100", "02:30 +0100", "03:00 +0100", "03:30 +0100"
    ]  # fmt: skip
    found = walls(crontab(45, tz="Australia/Lord_Howe"), "Australia/Lord_Howe", (2026, 4, 5, 1, 0), 3)
    assert [one[3:] for one in found] == ["01:45 +1100", "01:45 +1030", "02:45 +1030"]


def test_where_clocks_go_back_over_midnight_the_day_before_goes_on() -> None:
    # St. John's went back from 00:01 to 23:01 of the day before.
    found = walls(crontab("*/30", tz="America/St_Johns"), "America/St_Johns", (2010, 11, 6, 23, 0), 4)
    assert found == ["06 23:30 -0230", "07 00:00 -0230", "06 23:30 -0330", "07 00:00 -0330"]


def test_a_date_is_refused_whose_time_comes_twice_or_never() -> None:
    with pytest.raises(ConfigError, match=r"comes twice in Europe/Berlin: say .*\+02:00 or .*\+01:00"):
        once(datetime(2026, 10, 25, 2, 30), "Europe/Berlin")
    with pytest.raises(ConfigError, match=r"is skipped in Europe/Berlin: say 2026-03-29 03:00:00\+02:00"):
        once(datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")))
    assert once(datetime.fromisoformat("2026-10-25T02:30:00+01:00")).at == 1_792_891_800.0
