"""When an alarm begins and when it is over: a state machine on readings. Pure.

A reading tells a value and its limit. The alarm is raised at the limit and cleared below another, lower value, so that
a value at its limit does not ring all the time; what is measured by chance has to say so several times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

Kind = Literal["full", "age", "run_time", "slow_worker", "stuck_worker"]

State = Literal["raised", "cleared"]

MOST = 64
"""Alarms at once: what is wrong with a hundred tasks is one thing."""
LOOKS: Mapping[str, int] = MappingProxyType({"run_time": 3, "slow_worker": 5})
"""Looks in a row after which it is believed, where one is not enough."""
REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "full": "at 100% its callers are refused: start more workers, or call less",
        "age": "work waits: start more workers, and see penstock pressure for the slowest tasks",
        "run_time": "look at what it waits for: a database, a service, its arguments",
        "slow_worker": "look at its machine (CPU, memory, network), or stop it and let the others work",
        "stuck_worker": "see whether it is stopped (T in ps), or what it hangs in (py-spy dump); give the task a "
        "time_limit; kill -9 of that pid lets others have its task",
    }
)


class Reading(Struct, frozen=True):
    """One value against its limit. `subject` is a task's or a worker's name; none for what is the queue's own."""

    kind: Kind
    queue: str
    subject: str
    value: float
    limit: float
    clear: float
    """Below it the alarm is over."""


class Alarm(Struct, frozen=True, array_like=True):
    """What is the matter now. `value` is that of the last look, `since` Unix time."""

    kind: Kind
    queue: str
    subject: str
    value: float
    limit: float
    since: float


class PressureEvent(Struct, frozen=True):
    """An alarm that was raised or cleared, as hooks and webhooks get it. `value` and `limit` are parts of the bound for
    "full", times slower for "slow_worker", else seconds."""

    state: State
    kind: Kind
    namespace: str
    queue: str
    subject: str
    value: float
    limit: float
    since: float
    at: float
    text: str
    """For people: what it is, and what to do."""


class Alarms:
    """Of the queues that one process leads for."""

    def __init__(self, active: Iterable[Alarm] = ()) -> None:
        """`active`: what who led before had raised."""
        self._active = {_name(one): one for one in active}
        self._seen: dict[tuple[str, str, str], int] = {}
        """Looks in a row that speak against the present state."""

    @property
    def active(self) -> Sequence[Alarm]:
        return list(self._active.values())

    def adopt(self, alarms: Iterable[Alarm]) -> None:
        """Go on with what another had raised, without ringing again."""
        for one in alarms:
            self._active.setdefault(_name(one), one)

    def drop(self, queue: str) -> None:
        """Another leads for it now."""
        self._active = {name: one for name, one in self._active.items() if one.queue != queue}
        self._seen = {name: looks for name, looks in self._seen.items() if name[1] != queue}

    def look(self, readings: Iterable[Reading], namespace: str, now: float) -> list[PressureEvent]:
        """What has begun and what is over; `now` is Unix time. What is not read any more is over, too."""
        events = []
        found = {_name(one): one for one in readings}
        for name, reading in found.items():
            active = self._active.get(name)
            if active is None:
                against = reading.value >= reading.limit
            else:
                against = reading.value < reading.clear
                self._active[name] = _alarm(reading, active.since)
            if not self._believed(name, against):
                continue
            if active is not None:
                del self._active[name]
                over = _alarm(reading, active.since)
                events.append(
                    event("cleared", over, namespace, now, f"over after {now - over.since:.0f} s: {said(over)}")
                )
            elif len(self._active) < MOST:
                alarm = self._active[name] = _alarm(reading, now)
                events.append(event("raised", alarm, namespace, now, f"{said(alarm)}; {REMEDIES[alarm.kind]}"))
        for name in [name for name in self._active if name not in found]:
            if self._believed(name, True):
                over = self._active.pop(name)
                events.append(
                    event("cleared", over, namespace, now, f"over after {now - over.since:.0f} s; was: {said(over)}")
                )
        self._seen = {name: looks for name, looks in self._seen.items() if name in found or name in self._active}
        return events

    def _believed(self, name: tuple[str, str, str], against: bool) -> bool:
        looks = self._seen.get(name, 0) + 1 if against else 0
        if looks >= LOOKS.get(name[0], 1):
            self._seen.pop(name, None)
            return True
        self._seen[name] = looks
        return False


def _name(one: Reading | Alarm) -> tuple[str, str, str]:
    return one.kind, one.queue, one.subject


def _alarm(reading: Reading, since: float) -> Alarm:
    return Alarm(reading.kind, reading.queue, reading.subject, reading.value, reading.limit, since)


def event(state: State, alarm: Alarm, namespace: str, now: float, text: str) -> PressureEvent:
    kind, queue, subject, value, limit, since = (getattr(alarm, name) for name in Alarm.__struct_fields__)
    return PressureEvent(state, kind, namespace, queue, subject, value, limit, since, now, text)


def said(alarm: Alarm) -> str:
    """What is the matter, in one line."""
    queue, subject, value, limit = f"queue {alarm.queue!r}", repr(alarm.subject), alarm.value, alarm.limit
    match alarm.kind:
        case "full":
            return f"{queue} is {value:.0%} full, warned of at {limit:.0%}"
        case "age":
            return f"{queue}: the oldest ready task has waited {value:.1f} s, warned of at {limit:g} s"
        case "run_time":
            return f"{queue}: task {subject} takes {value:.3g} s, expected are at most {limit:.3g} s"
        case "slow_worker":
            return f"{queue}: worker {subject} takes {value:.1f} times as long as the others, warned of at {limit:g}"
        case "stuck_worker":
            return f"{queue}: worker {subject} has ended nothing for {value:.0f} s, warned of at {limit:.3g} s"
