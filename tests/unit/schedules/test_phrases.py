"""Schedules in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from penstock import ConfigError, crontab, once, schedule
from penstock.schedules.phrases import phrase


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("at 5:03 pm every Sunday", crontab(3, 17, 0)),
        ("every Sunday at 5:03 PM", crontab(3, 17, 0)),
        ("at 9:00 every day", crontab(0, 9)),
        ("at 12 am every day", crontab(0, 0)),
        ("at 12:30 pm every day", crontab(30, 12)),
        ("at noon every weekday", crontab(0, 12, "1-5")),
        ("at midnight every weekend", crontab(0, 0, "6,0")),
        ("at 9:00 and 17:00 every Monday, Wednesday and Friday", crontab(0, "9,17", "1,3,5")),
        ("on Mondays and Fridays at 8 am", None),
        ("every Mondays at 8 am", crontab(0, 8, 1)),
        ("at 6:00 on the 1st and 15th", crontab(0, 6, "*", "1,15")),
        ("at 6:00 on the 31st of January, March and December", crontab(0, 6, "*", 31, "1,3,12")),
        ("on the 2nd of every month at 6:00", crontab(0, 6, "*", 2)),
        ("at 7:00 every day in Asia/Tokyo", crontab(0, 7, tz="Asia/Tokyo")),
        ("every 10 minutes", schedule(600)),
        ("every second", schedule(1)),
        ("every hour", schedule(3600)),
        ("every 2 days", schedule(172_800)),
        ("on 2026-12-24 at 18:00", once(datetime(2026, 12, 24, 18, tzinfo=UTC))),
        ("at 6 pm on 2026-12-24 in Europe/Berlin", once(datetime(2026, 12, 24, 17, tzinfo=UTC))),
    ],
)
def test_words(words: str, expected: object) -> None:
    if expected is None:
        with pytest.raises(ConfigError):
            phrase(words)
        return
    assert phrase(words) == expected


def test_a_zone_in_the_words_goes_before_that_of_the_app() -> None:
    assert phrase("at 7:00 every day", "Europe/Berlin").tz == "Europe/Berlin"  # type: ignore[union-attr]  # a crontab
    assert phrase("at 7:00 every day in UTC", "Europe/Berlin").tz == "UTC"  # type: ignore[union-attr]  # a crontab


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("every day", "at what time"),
        ("now and then", "neither"),
        ("at 25:00 every day", "there is no time"),
        ("at 13 pm every day", "1 to 12"),
        ("at 5 every day", "is no time"),
        ("at 9:00 every Caturday", "is no day"),
        ("at 9:00 and 17:30 every day", "different minutes"),
        ("at 9:00 on the 30th of February", "can never run"),
        ("at 9:00 on the 32nd", "not a number from 1 to 31"),
        ("at 9:00 on 2026-02-30", "there is no day"),
        ("at 2:30 on 2026-10-25 in Europe/Berlin", "comes twice"),
        ("at 9:00 every day in Atlantis", "no time zone"),
        ("every 0 minutes", "every 0.1 seconds"),
        ("at 9:00 every " + "Monday and " * 500, "300 characters"),
    ],
)
def test_what_is_wrong_is_said(words: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        phrase(words)
