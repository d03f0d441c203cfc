"""Schedules in words: "at 5:03 pm every Sunday".

    phrase    = ("at" times "every" days | "every" days "at" times) [zone]
              | "every" [number] ("seconds" | "minutes" | "hours" | "days" | "weeks")      of elapsed time
              | ("at" times "on the" dates | "on the" dates "at" times) ["of" months] [zone]
              | ("at" time "on" date | "on" date "at" time) [zone]                         once
    days      = "day" | "weekday" | "weekend" | a weekday, or several
    dates     = "1st" | "2nd" …, or several
    months    = "every month" | a month, or several
    times     = time, or several that share their minutes
    time      = "17:03" | "5:03 pm" | "5 pm" | "noon" | "midnight"
    date      = "2026-12-24"
    zone      = "in" a name such as Europe/Berlin
    several   = "Monday, Wednesday and Friday"

Letters may be small or capital.
"""

from __future__ import annotations

import re
from datetime import datetime

from penstock.errors import ConfigError
from penstock.schedules.cron import crontab
from penstock.schedules.fields import DAY_OF_WEEK, MONTH
from penstock.schedules.simple import once, schedule

LONGEST = 300
"""Characters of a phrase."""
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_ZONE = re.compile(r"(.*?)\s+in\s+([A-Za-z_]+(?:/[\w+-]+)*)", re.ASCII)
_EVERY = re.compile(r"every(?:\s+(\d{1,9}))?\s+(second|minute|hour|day|week)s?", re.ASCII)
_AT_WHEN = re.compile(r"at\s+(?P<times>.+?)\s+(?P<when>(?:every|on)\s.+)")
_WHEN_AT = re.compile(r"(?P<when>(?:every|on)\s.+?)\s+at\s+(?P<times>.+)")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*(am|pm)?", re.ASCII)
_DATE = re.compile(r"on\s+(\d{4}-\d{2}-\d{2})", re.ASCII)
_DATES = re.compile(r"on\s+the\s+(.+?)(?:\s+of\s+(.+))?")
_NTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)", re.ASCII)
_AND = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+")
_NAMED_DAYS = {"day": "*", "weekday": "1-5", "weekend": "6,0"}


def phrase(text: str, tz: str = "") -> crontab | schedule | once:
    """The schedule that `text` describes; wall times are those of the zone that it names, else of `tz`. Raises
    `ConfigError`."""
    if len(text) > LONGEST:
        raise ConfigError(f"a schedule in words has at most {LONGEST} characters, not {len(text):,}")
    words = " ".join(text.split())
    named = _ZONE.fullmatch(words)
    if named is not None:
        words, tz = named.groups()
    words = words.lower()
    every = _EVERY.fullmatch(words)
    if every is not None:
        return _elapsed(text, every)
    split = _AT_WHEN.fullmatch(words) or _WHEN_AT.fullmatch(words)
    if split is None:
        raise _wrong(text, "it says neither 'every 10 minutes' nor 'at … every …'")
    times = [_time(text, one) for one in _AND.split(split["times"])]
    when = split["when"]
    date = _DATE.fullmatch(when)
    if date is not None:
        return _on_date(text, date[1], times, tz)
    minutes = {minute for _, minute in times}
    if len(minutes) > 1:
        raise _wrong(text, "its times have different minutes: make a schedule of each")
    hours = sorted({hour for hour, _ in times})
    dates = _DATES.fullmatch(when)
    if dates is not None:
        months = _months(text, dates[2])
        return crontab(minutes.pop(), hours, "*", _days_of_month(text, dates[1]), months, tz)
    return crontab(minutes.pop(), hours, _weekdays(text, when.removeprefix("every").strip()), "*", "*", tz)


def _elapsed(text: str, every: re.Match[str]) -> schedule:
    number, unit = every.groups()
    if number is None and unit in ("day", "week"):
        raise _wrong(text, f"at what time? 'at 9:00 every {'day' if unit == 'day' else 'Monday'}'")
    return schedule(int(number or 1) * _UNITS[unit])


def _on_date(text: str, date: str, times: list[tuple[int, int]], tz: str) -> once:
    if len(times) > 1:
        raise _wrong(text, "one date has one time")
    (hour, minute) = times[0]
    try:
        day = datetime.strptime(date, "%Y-%m-%d")
    except ValueError as error:
        raise _wrong(text, f"there is no day {date}") from error
    return once(day.replace(hour=hour, minute=minute), tz or "UTC")


def _time(text: str, words: str) -> tuple[int, int]:
    """Hour and minute."""
    if words in ("noon", "midnight"):
        return (12 if words == "noon" else 0), 0
    match = _TIME.fullmatch(words)
    if match is None or (match[2] is None and match[3] is None):
        raise _wrong(text, f"{words!r} is no time such as 17:03, 5:03 pm or noon")
    hour, minute = int(match[1]), int(match[2] or 0)
    if match[3] is not None:
        if not 1 <= hour <= 12:
            raise _wrong(text, f"{words!r}: hours with am or pm are 1 to 12")
        hour = hour % 12 + (12 if match[3] == "pm" else 0)
    if hour > 23 or minute > 59:
        raise _wrong(text, f"there is no time {words!r}")
    return hour, minute


def _weekdays(text: str, words: str) -> str:
    if words in _NAMED_DAYS:
        return _NAMED_DAYS[words]
    found = []
    for word in _AND.split(words):
        number = DAY_OF_WEEK.names.get(word) if word in DAY_OF_WEEK.names else DAY_OF_WEEK.names.get(word[:-1])
        if number is None or (word not in DAY_OF_WEEK.names and not word.endswith("days")):
            raise _wrong(text, f"{word!r} is no day: say day, weekday, weekend, Monday …")
        found.append(number)
    return ",".join(map(str, sorted(set(found))))


def _days_of_month(text: str, words: str) -> list[int]:
    found = []
    for word in _AND.split(words):
        match = _NTH.fullmatch(word.removeprefix("the "))
        if match is None:
            raise _wrong(text, f"{word!r} is no day of a month such as 1st or 15th")
        found.append(int(match[1]))
    return found


def _months(text: str, words: str | None) -> str:
    if words is None or words in ("every month", "each month"):
        return "*"
    found = []
    for word in _AND.split(words):
        number = MONTH.names.get(word)
        if number is None:
            raise _wrong(text, f"{word!r} is no month: say every month, January …")
        found.append(number)
    return ",".join(map(str, found))


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"schedule {text!r}: {why}")
