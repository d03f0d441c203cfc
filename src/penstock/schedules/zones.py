"""Wall-clock time and Unix time: which moments a wall time stands for, where clocks are changed.

A wall time that is skipped stands for the moment after the gap; one that is repeated for two moments.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from math import isfinite

from penstock.errors import ConfigError
from penstock.spelling import hint

LAST = 253_402_214_400.0
"""The last day of the year 9999, which no calendar here goes beyond."""


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises `ConfigError`."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones  # few apps need it

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:  # hostile names are among these, too
        known = available_timezones()
        missing = "" if known else "; this system has no time zones: pip install tzdata"
        raise ConfigError(f"there is no time zone {name!r}{missing or hint(str(name), known)}") from error


def wall(moment: float, tz: tzinfo) -> datetime:
    """What a clock on the wall shows at a Unix time, without a zone."""
    return datetime.fromtimestamp(moment, tz).replace(tzinfo=None, fold=0)


def moments(shown: datetime, tz: tzinfo) -> tuple[float, ...]:
    """The Unix times that a wall time stands for: one, or two where it is repeated, in order."""
    first = shown.replace(tzinfo=tz, fold=0).timestamp()
    second = shown.replace(tzinfo=tz, fold=1).timestamp()
    if first < second:
        return (first, second)
    if first > second:
        return (_transition(second, first, tz),)
    return (first,)


def steady(day: datetime, tz: tzinfo) -> bool:
    """No clock is changed on this day (a midnight without a zone), nor at its two ends."""
    if tz is UTC:
        return True
    begin, end = day.replace(tzinfo=tz), (day + timedelta(days=1)).replace(tzinfo=tz)
    offset = begin.utcoffset()
    return begin.replace(fold=1).utcoffset() == end.utcoffset() == end.replace(fold=1).utcoffset() == offset


def is_number(value: object) -> bool:
    """A finite number, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _transition(before: float, after: float, tz: tzinfo) -> float:
    """The moment, in whole seconds, at which clocks were changed between two moments."""
    old = datetime.fromtimestamp(before, tz).utcoffset()
    low, high = int(before), int(after)
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, tz).utcoffset() == old:
            low = middle
        else:
            high = middle
    return float(high)
