"""A line of the timetable: what is published, when, and what is done about ticks that were missed. Pure.

A tick is a moment of a schedule. It has a number, so that it is published once however many believe that it is theirs
to publish; with jitter it fires a little later than its moment, but before the next.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, get_args
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from penstock.errors import ConfigError
from penstock.keys import digest
from penstock.message import MAX_NAME, Dedup, Fence, Message
from penstock.queue import check_name
from penstock.schedules import Schedule

CatchUp = Literal["none", "latest", "all"]
LATE = 60.0
"""Seconds that a tick may be late without being missed: somebody else took over, or a queue was full."""
ALL_MAX_LATE = 3600.0
"""How late a tick may be that is caught up with `catch_up="all"`, when nobody says."""
ALL_LONGEST = 7 * 86_400.0
"""The most that it may be."""
MOST_CAUGHT_UP = 1000
"""Ticks of one schedule that are caught up, the newest."""
SLACK = 300.0
"""Seconds beyond the last possible repeat that a tick is remembered: what the clocks of machines may differ by, and a
take-over may take."""
LAST_REMEMBERED = 30 * 86_400.0
"""Seconds that the last tick of a schedule is remembered, which no other follows."""


class Line(Struct, frozen=True):
    """`message` is the call as it is published at each tick, with its times relative to that. `jitter` and `max_late`
    in seconds; ticks up to `since`, Unix time, are none of its. `origin`: "app", its code; "added", at run time."""

    name: str
    schedule: Schedule
    message: Message
    jitter: float = 0.0
    catch_up: CatchUp = "latest"
    max_late: float | None = None
    origin: Literal["app", "added"] = "app"
    since: float = 0.0
    paused: bool = False

    def __post_init__(self) -> None:
        check_name("schedule", self.name)
        check_policy(self.name, self.jitter, self.catch_up, self.max_late)

    @property
    def bound(self) -> float:
        """How many seconds late a tick may be published at all."""
        if self.max_late is not None:
            return self.max_late
        return {"none": LATE, "latest": float("inf"), "all": ALL_MAX_LATE}[self.catch_up]

    def fires(self, tick: float) -> float:
        """When a tick fires: jitter is the same for all who ask, and never reaches the following tick."""
        if not self.jitter:
            return tick
        following = next_of(self.schedule, tick)
        room = self.jitter if following is None else min(self.jitter, following - tick)
        return tick + room * (crc32(f"{self.name}@{tick:.6f}".encode()) / 2**32)

    def remembers(self, tick: float, following: float | None) -> float:
        """Seconds that a tick must be recognised after it was published.

        Who takes over publishes it again only while it is the newest, or with "all" while it is not too late.
        """
        if self.catch_up == "all":
            return self.bound + SLACK
        newest = LAST_REMEMBERED if following is None else following - tick + self.jitter
        return min(newest, self.bound) + SLACK


class Tick(Struct, frozen=True, dict=True):
    """One tick of a line: its moment, and when it fires."""

    line: Line
    moment: float
    fires: float

    @cached_property
    def following(self) -> float | None:
        """The moment of the next one; `None`: it is the last."""
        return next_of(self.line.schedule, self.moment)

    def message(self, app: str, era: int, fence: Fence, now: float) -> Message:
        """What is published for it at `now`. `era` counts the times that the clock was set back: then its moments come
        again, and are others."""
        template = self.line.message
        name = tick_id(template.namespace, app, self.line.name, self.moment, era)
        return replace(
            template,
            id=name,
            sent=now,
            eta=None if template.eta is None else template.eta + now,
            expires=None if template.expires is None else template.expires + now,
            guards=(*template.guards, fence, Dedup(name, self.line.remembers(self.moment, self.following))),
        )


def next_of(schedule: Schedule, moment: float) -> float | None:
    """What the schedule says comes after `moment`. Raises `ValueError` when that is not after it: of an app's own
    schedule nothing is taken for granted, and one that stands still would hold up all others."""
    found = schedule.next_after(moment)
    if found is not None and not found > moment:
        raise ValueError(f"next_after({moment!r}) must be later, or None, not {found!r}")
    return found


def tick_id(namespace: str, app: str, name: str, moment: float, era: int) -> str:
    """The id of a tick's task: the schedule's name and its moment in UTC."""
    at = datetime.fromtimestamp(moment, UTC)
    shown = at.strftime("%Y%m%dT%H%M%S") + (f".{at.microsecond:06}" if at.microsecond else "") + "Z"
    tail = f"@{shown}" + (f"~{era}" if era else "")
    head = f"beat:{namespace}:{app}:{name}"
    if len(head.encode()) + len(tail) > MAX_NAME:
        head = f"beat:{digest(head.encode())}"
    return head + tail


def check_policy(name: str, jitter: object, catch_up: object, max_late: object) -> None:
    """Raises `ConfigError`."""
    for what, value in (("jitter", jitter), ("max_late", max_late)):
        if what == "max_late" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ConfigError(f"schedule {name!r}: {what} must be at least 0 seconds, not {value!r}")
    if catch_up not in get_args(CatchUp):
        raise ConfigError(f"schedule {name!r}: catch_up must be 'none', 'latest' or 'all', not {catch_up!r}")
    if catch_up == "all" and isinstance(max_late, (int, float)) and max_late > ALL_LONGEST:
        raise ConfigError(
            f"schedule {name!r}: with catch_up='all' max_late is at most {ALL_LONGEST:g} seconds, since each tick is "
            "remembered as long"
        )
