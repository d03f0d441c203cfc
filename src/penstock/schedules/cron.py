"""`crontab`: wall-clock schedules, with Celery's fields.

Its own evaluation, because libraries for cron lines have cron's meaning where Celery has another (a day of the month
*and* a day of the week must fit, both), and each its own idea of a change of clocks. Ours is in `zones` and here:
a skipped time is the moment after the gap; a repeated one is its first moment, or with `hour="*"`, which is bound to no
hour, both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import cached_property, lru_cache

from msgspec import Struct
from msgspec.structs import force_setattr

from penstock.errors import ConfigError
from penstock.schedules import fields
from penstock.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, Given, canonical
from penstock.schedules.zones import LAST, moments, steady, wall, zone

DAY = timedelta(days=1)
DAY_SECONDS = 86_400
YEARS = 41
"""After so many years each date has been on each weekday, leap years that are left out included."""
LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class crontab(Struct, frozen=True, tag="crontab", dict=True):
    """When the clock on the wall of time zone `tz` shows a time that fits all fields.

    Fields are numbers, text (`"*"`, `"*/15"`, `"1-5"`, `"mon,fri"`) or lists of numbers; Sunday is 0. Without `tz` it
    is the app's `timezone`, or UTC. Raises `ConfigError` for a field that is wrong, and for days that never come.
    """

    minute: Given = "*"
    hour: Given = "*"
    day_of_week: Given = "*"
    day_of_month: Given = "*"
    month_of_year: Given = "*"
    tz: str = ""

    def __post_init__(self) -> None:
        for kind in (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH):
            force_setattr(self, kind.name, canonical(kind, getattr(self, kind.name)))
        if self.tz:
            zone(self.tz)
        days, months = self._numbers(DAY_OF_MONTH), self._numbers(MONTH)
        if not any(days[0] <= LENGTHS[month - 1] for month in months):
            raise ConfigError(
                f"{self} can never run: there is no day {self.day_of_month} in month {self.month_of_year}"
            )

    @classmethod
    def from_string(cls, line: str, tz: str = "") -> crontab:
        """From a cron line: minute, hour, day of the month, month, day of the week. Raises `ConfigError`."""
        words = line.split()
        if len(words) != 5:
            raise ConfigError(f"a cron line has 5 fields (minute hour day month weekday), not {len(words)}: {line!r}")
        minute, hour, day_of_month, month_of_year, day_of_week = words
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, tz)

    def __str__(self) -> str:
        line = f"{self.minute} {self.hour} {self.day_of_month} {self.month_of_year} {self.day_of_week}"
        return f"{line} {self.tz}".rstrip()

    def next_after(self, moment: float) -> float | None:
        """The first Unix time after `moment` at which it is due; `None`: never again."""
        if moment >= LAST:
            return None
        plan = self._plan
        start = wall(moment, plan.tz).replace(hour=0, minute=0, second=0, microsecond=0)
        # The day before, too: where clocks go back at midnight, it goes on after the next has begun.
        days = plan.days_from(start if steady(start, plan.tz) else start - DAY)
        for day in days:
            found = plan.first_on(day, moment)
            if found is None:
                continue
            if steady(day, plan.tz):
                return found
            after = next(days, None)
            if after != day + DAY:
                return found
            other = plan.first_on(after, moment)
            return found if other is None else min(found, other)
        return None

    def _numbers(self, kind: fields.Kind) -> tuple[int, ...]:
        return fields.numbers(kind, str(getattr(self, kind.name)))

    @cached_property
    def _plan(self) -> Plan:
        return Plan(
            zone(self.tz or "UTC"),
            self._numbers(MINUTE),
            self._numbers(HOUR),
            frozenset(self._numbers(DAY_OF_WEEK)),
            self._numbers(DAY_OF_MONTH),
            self._numbers(MONTH),
            len(self._numbers(HOUR)) == 24,
        )


class Plan(Struct, frozen=True):
    """A crontab as numbers. Days are midnights on the wall."""

    tz: tzinfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    weekdays: frozenset[int]
    days: tuple[int, ...]
    months: tuple[int, ...]
    repeats: bool
    """It runs at both moments of a repeated time."""

    def days_from(self, start: datetime) -> Iterator[datetime]:
        """The days that fit, in order, from `start` on."""
        first = (start.year, start.month)
        for year in range(start.year, min(start.year + YEARS, 9999)):
            for month in self.months:
                if (year, month) < first:
                    continue
                begin = bisect_left(self.days, start.day) if (year, month) == first else 0
                for number in self.days[begin:]:
                    if number > LENGTHS[month - 1] or (month == 2 and number == 29 and not _leap(year)):
                        continue
                    day = datetime(year, month, number)
                    if day.isoweekday() % 7 in self.weekdays:
                        yield day

    def first_on(self, day: datetime, after: float) -> float | None:
        """The first moment of this day that is after `after`."""
        if not steady(day, self.tz):
            all_day = _all_day(self.tz, day, self.hours, self.minutes, self.repeats)
            at = bisect_right(all_day, after)
            return all_day[at] if at < len(all_day) else None
        midnight = day.replace(tzinfo=self.tz).timestamp()
        # Of the minutes that begin after `after`, the first.
        least = max(0, int((after - midnight) // 60) + 1)
        if least >= 24 * 60:
            return None
        hour, minute = divmod(least, 60)
        at = bisect_left(self.hours, hour)
        if at == len(self.hours):
            return None
        if self.hours[at] == hour:
            found_minute = bisect_left(self.minutes, minute)
            if found_minute < len(self.minutes):
                return midnight + 3600 * hour + 60 * self.minutes[found_minute]
            at += 1
            if at == len(self.hours):
                return None
        return midnight + 3600 * self.hours[at] + 60 * self.minutes[0]


@lru_cache(maxsize=512)
def _all_day(
    tz: tzinfo, day: datetime, hours: tuple[int, ...], minutes: tuple[int, ...], repeats: bool
) -> tuple[float, ...]:
    """The moments of a day on which clocks are changed, in order. Kept, since thousands of schedules may be due every
    minute of it."""
    found: set[float] = set()
    for hour in hours:
        for minute in minutes:
            both = moments(day.replace(hour=hour, minute=minute), tz)
            found.update(both if repeats else both[:1])
    return tuple(sorted(found))


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
