"""When: schedules as values, each with one question, what is the first moment after this one? Pure.

Moments are Unix times in seconds. A schedule is immutable, and means the same in every process: nothing of it depends
on when it was made, or on what ran before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from msgspec.structs import replace

from penstock.errors import ConfigError
from penstock.schedules.cron import crontab
from penstock.schedules.simple import once, schedule
from penstock.schedules.sun import solar

__all__ = ["Known", "Schedule", "ScheduleLike", "crontab", "once", "read_schedule", "schedule", "solar"]

Known = crontab | schedule | solar | once
"""Those that can be stored. An app may have others in its code."""


@runtime_checkable
class Schedule(Protocol):
    """What a schedule of one's own must offer: immutable, with a `str` that says what it is and differs when it
    differs, and the same answers in all processes."""

    def next_after(self, moment: float) -> float | None:
        """The first Unix time after `moment` at which it is due; `None`: never again."""
        ...


ScheduleLike = Schedule | float | timedelta | datetime | str
"""Seconds; a moment; a cron line, or words as in `penstock.schedules.phrases`."""


def read_schedule(given: ScheduleLike, tz: str) -> Schedule:
    """The schedule that is meant; wall times without a zone are those of `tz`. Raises `ConfigError`."""
    if isinstance(given, crontab):
        return given if given.tz else replace(given, tz=tz)
    if isinstance(given, str):
        if given[:1].isdigit() or given[:1] == "*":
            return crontab.from_string(given, tz)
        from penstock.schedules.phrases import phrase  # a dozen patterns that few need

        return phrase(given, tz)
    if isinstance(given, datetime):
        return once(given, "" if given.tzinfo is not None else tz)
    if isinstance(given, timedelta) or (isinstance(given, (int, float)) and not isinstance(given, bool)):
        return schedule(given)
    if isinstance(given, Schedule):
        given.next_after(0.0)  # one that needs what is not installed says so now
        return given
    raise ConfigError(
        "a schedule is a crontab, seconds, a timedelta, a datetime, or text such as '0 4 * * *' or "
        f"'at 4:00 every day', not {given!r}"
    )
