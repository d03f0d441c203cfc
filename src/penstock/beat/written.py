"""A timetable as an app writes it: `beat_schedule`, and `app.add_periodic_task`. Pure but for the app's client."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from penstock.beat.line import CatchUp, Line, check_policy
from penstock.errors import ConfigError
from penstock.message import Message
from penstock.on_full import only_single
from penstock.queue import check_name
from penstock.schedules import ScheduleLike, read_schedule
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock

ANY_ZONE = "UTC"
"""For checking what is written before the app's time zone is known."""
MOST = 200_000
"""Schedules of one app."""
REFUSED = ("eta", "task_id")
"""Options of a call that would mean the same moment, or the same task, at each tick."""


class Written(Struct, frozen=True, kw_only=True):
    """An entry of `beat_schedule`: the call of `task` with `args`, `kwargs` and the `options` of `apply_async`.

    `jitter` and `max_late` in seconds; see `penstock.beat.Line`. Raises `ConfigError`.
    """

    task: str
    schedule: ScheduleLike
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    jitter: float = 0.0
    catch_up: CatchUp = "latest"
    max_late: float | None = None


class AddedSchedules:
    """What `add_periodic_task` adds to `beat_schedule`. Settings may still change then, so that it is kept as it was
    given; it is checked at once."""

    def __init__(self) -> None:
        self._given: dict[str, Mapping[str, Any]] = {}
        self._read: tuple[Mapping[str, Written], str, Mapping[str, Written]] | None = None
        """What was asked for last: the settings' part, the time zone, and all together."""

    def add(self, name: str, given: Mapping[str, Any]) -> None:
        """Raises `ConfigError` for what is wrong, and for another of that name."""
        written, there = read_written(name, given, ANY_ZONE), self._given.get(name)
        if there is not None:
            check_same(name, read_written(name, there, ANY_ZONE), written)
        self._given[name] = given
        self._read = None

    def check(self, name: str, settings: Mapping[str, Written], tz: str) -> None:
        """Take back what was added, and raise `ConfigError`, when `beat_schedule` has another of that name."""
        try:
            check_same(name, settings.get(name), read_written(name, self._given[name], tz))
        except ConfigError:
            del self._given[name]
            raise

    def with_settings(self, settings: Mapping[str, Written], tz: str) -> Mapping[str, Written]:
        """All, by name; wall times without a zone are those of `tz`. Raises `ConfigError`."""
        if self._read is None or self._read[0] is not settings or self._read[1] != tz:
            every = dict(settings)
            for name, given in self._given.items():
                written = read_written(name, given, tz)
                check_same(name, every.get(name), written)
                every[name] = written
            self._read = (settings, tz, every)
        return MappingProxyType(self._read[2])


def check_same(name: str, there: Written | None, written: Written) -> None:
    """Raise `ConfigError` when there is another schedule of that name."""
    if there is not None and there != written:
        raise ConfigError(
            f"two schedules are named {name!r}: {there.task} by {str(there.schedule)!r}, and {written.task} by "
            f"{str(written.schedule)!r}; give one of them name='…'"
        )


def read_written(name: str, given: Mapping[str, Any], tz: str) -> Written:
    """Raises `ConfigError` for what is unknown, missing or wrong."""
    check_name("schedule", name)
    if not isinstance(given, Mapping):
        raise ConfigError(f"schedule {name!r} must be a dict with task and schedule, not {given!r}")
    for key in given:
        if key not in Written.__struct_fields__:
            raise ConfigError(f"schedule {name!r}: unknown key {key!r}{hint(str(key), Written.__struct_fields__)}")
    for key in ("task", "schedule"):
        if key not in given:
            raise ConfigError(f"schedule {name!r} has no {key!r}")
    values = dict(given)
    check_name("task", values["task"])
    try:
        values["schedule"] = read_schedule(values["schedule"], tz)
    except ConfigError as error:
        raise ConfigError(f"schedule {name!r}: {error}") from error
    values["args"] = tuple(values.get("args") or ())
    for key in ("kwargs", "options"):
        values[key] = dict(values.get(key) or {})
    for option in REFUSED:
        if option in values["options"]:
            raise ConfigError(f"schedule {name!r}: option {option!r} would be the same at each tick; leave it out")
    only_single(f"schedule {name!r}", values["options"])
    check_policy(name, values.get("jitter", 0.0), values.get("catch_up", "latest"), values.get("max_late"))
    return Written(**values)


def line_of(app: Penstock, name: str, written: Written) -> Line:
    """The line of a written entry, with its call encoded. Raises `ConfigError`, and `TypeError` when the arguments do
    not fit the task."""
    return Line(
        name,
        read_schedule(written.schedule, app.conf.timezone),
        _message(app, written),
        written.jitter,
        written.catch_up,
        written.max_late,
    )


def _message(app: Penstock, written: Written) -> Message:
    """The call, with times relative to its publish, and no parent: what adds a schedule is not what its ticks are part
    of."""
    task = app.tasks.get(written.task)
    if task is None:
        message = app.client.prepare_unknown(written.task, written.args, written.kwargs, written.options)
    else:
        message = app.client.prepare(task, written.args, written.kwargs, written.options)
    if type(message.queue) is not str:
        raise ConfigError(
            f"a tick is one task, and {message.queue!s} stands for several queues: let the periodic task be one that "
            "publishes to them"
        )
    options = message.options
    return replace(
        message,
        sent=0.0,
        eta=None if message.eta is None else round(message.eta - message.sent, 3),
        expires=None if message.expires is None else round(message.expires - message.sent, 3),
        options=None if options is None else replace(options, root_id=None, parent_id=None),
    )
