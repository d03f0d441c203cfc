"""`schedule`: every so many seconds; and `once`: at one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import floor

from msgspec import Struct
from msgspec.structs import force_setattr

from penstock.errors import ConfigError
from penstock.schedules.zones import LAST, is_number, moments, wall, zone

SHORTEST = 0.1
"""Seconds between two ticks. What is due more often is a loop, not a schedule."""
LONGEST = 100 * 366 * 86_400.0


class schedule(Struct, frozen=True, tag="every"):
    """Every `run_every` seconds (or a `timedelta`) of elapsed time, whatever clocks show.

    Ticks are counted from `anchor`, Unix time: all processes agree on them, and a restart moves none. So every 3600
    seconds is at the full hour of UTC. Raises `ConfigError` for less than 0.1 seconds, or more than a century.
    """

    run_every: float | timedelta
    anchor: float = 0.0

    def __post_init__(self) -> None:
        every = self.run_every
        if isinstance(every, timedelta):
            every = every.total_seconds()
        if not is_number(every) or not SHORTEST <= every <= LONGEST:
            raise ConfigError(f"a schedule must be every {SHORTEST:g} seconds at most often, not {self.run_every!r}")
        if not is_number(self.anchor):
            raise ConfigError(f"schedule: anchor must be Unix time in seconds, not {self.anchor!r}")
        force_setattr(self, "run_every", float(every))

    def __str__(self) -> str:
        anchored = f" from {shown(self.anchor)}" if self.anchor else ""
        return f"every {self._seconds:g} s{anchored}"

    def next_after(self, moment: float) -> float | None:
        """The first Unix time after `moment` at which it is due."""
        if moment >= LAST:
            return None
        # To the microsecond, so that a tick has one number, however it was come by.
        count = floor((moment - self.anchor) / self._seconds)
        tick = round(self.anchor + count * self._seconds, 6)
        while tick <= moment:
            count += 1
            tick = round(self.anchor + count * self._seconds, 6)
        return tick

    @property
    def _seconds(self) -> float:
        return self.run_every  # type: ignore[return-value]  # a float since it was made


class once(Struct, frozen=True, tag="once"):
    """At one moment: Unix time, an aware `datetime`, or one without a zone on the wall of time zone `tz`.

    Raises `ConfigError` for a wall time that is skipped or repeated there, or that has no zone at all.
    """

    at: float | datetime
    tz: str = ""

    def __post_init__(self) -> None:
        at = self.at
        if isinstance(at, datetime):
            at = _moment(at, self.tz)
        if not is_number(at) or not 0 <= at < LAST:
            raise ConfigError(f"once: must be a datetime, or Unix time in seconds, not {self.at!r}")
        force_setattr(self, "at", float(at))
        force_setattr(self, "tz", "")

    def __str__(self) -> str:
        return f"once at {shown(self._moment)}"

    def next_after(self, moment: float) -> float | None:
        """Its moment, if that is after `moment`."""
        return self._moment if self._moment > moment else None

    @property
    def _moment(self) -> float:
        return self.at  # type: ignore[return-value]  # a float since it was made


def _moment(given: datetime, name: str) -> float:
    if given.tzinfo is None and not name:
        raise ConfigError(f"once: {given.isoformat(' ')} has no time zone: give it one, or once(…, tz='Europe/Berlin')")
    if given.tzinfo is not None and name:
        raise ConfigError(f"once: {given.isoformat(' ')} has a time zone, and tz={name!r} is another; give one")
    tz = given.tzinfo or zone(name)
    shown_time = given.replace(tzinfo=None, fold=0)
    found = moments(shown_time, tz)
    if len(found) > 1:
        both = " or ".join(datetime.fromtimestamp(one, tz).isoformat(" ") for one in found)
        raise ConfigError(f"once: {shown_time.isoformat(' ')} comes twice in {name or tz}: say {both}")
    if wall(found[0], tz) != shown_time:
        after = datetime.fromtimestamp(found[0], tz).isoformat(" ")
        raise ConfigError(f"once: {shown_time.isoformat(' ')} is skipped in {name or tz}: say {after}, or another time")
    return found[0]


def shown(moment: float) -> str:
    """A moment for people, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
