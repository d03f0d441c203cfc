"""The timetable, looked at and changed while beats run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from penstock.beat.beat import own_lines
from penstock.beat.line import CatchUp, Line
from penstock.beat.missed import first_after
from penstock.beat.place import check_engine, prefix_of
from penstock.beat.reconcile import in_force, reconciled
from penstock.beat.stored import Position, Record, Timetables, record_of
from penstock.beat.vouching import check_vouched, is_vouched, vouched
from penstock.beat.written import line_of, read_written
from penstock.canvas.calls import Signature
from penstock.canvas.linked import refuse_links
from penstock.errors import ConfigError, PenstockError
from penstock.message import unpack
from penstock.schedules import ScheduleLike

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.result import AsyncResult

T = TypeVar("T")


class Listed(Struct, frozen=True):
    """A schedule as it is now. `next` is when it fires, Unix time; `None`: paused, or never again. `origin`: "app", the
    app's code; "added", at run time."""

    name: str
    task: str
    queue: str
    schedule: str
    next: float | None
    paused: bool
    origin: str
    jitter: float
    catch_up: CatchUp
    max_late: float | None


class Timetable:
    """`app.timetable`. What it changes is stored in the broker, and is in force within about a second, and from then on
    whichever beat leads. Blocking; from coroutines call it by `asyncio.to_thread`."""

    def __init__(self, app: Penstock) -> None:
        """Raises `Unsupported` for a broker that keeps none."""
        check_engine(app.engine.broker.features)
        self._app = app
        self._tables = Timetables(app.engine.coordinator, prefix_of(app))

    def add(
        self,
        name: str,
        schedule: ScheduleLike,
        call: Signature[Any],
        *,
        jitter: float = 0.0,
        catch_up: CatchUp = "latest",
        max_late: float | None = None,
    ) -> None:
        """Publish `call` (`task.s(…)`) by `schedule`, beginning now. The same again changes nothing. Raises
        `ConfigError` for what is wrong, and for a name that another schedule has."""
        if name in self._app.periodic:
            raise ConfigError(f"schedule {name!r} is in the app's code: change it there, or take another name")
        refuse_links(call)
        given = {
            "task": call.task,
            "schedule": schedule,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": call.options,
            "jitter": jitter,
            "catch_up": catch_up,
            "max_late": max_late,
        }
        line = line_of(self._app, name, read_written(name, given, self._app.conf.timezone))
        now = self._app.clock.time()
        trust = self._app.pipeline.trust
        fresh = vouched(record_of(replace(line, origin="added", since=now)), trust)
        if fresh.schedule is None:
            raise ConfigError(
                f"schedule {name!r}: a {type(line.schedule).__name__} is known to the app's code only: put it into "
                "beat_schedule"
            )
        if first_after(line, now) is None:
            raise ConfigError(f"schedule {name!r}: {fresh.text} never comes again")

        def decide(name: str, there: Record | None) -> Record:
            if there is None:
                return fresh
            if replace(fresh, since=there.since, paused=there.paused, signed=there.signed) != there:
                raise ConfigError(
                    f"two schedules are named {name!r}: {there.text!r} of {_task(there)} is there already; remove it "
                    "first, or take another name"
                )
            return there if is_vouched(there, trust) else fresh

        self._run(self._tables.change([name], decide))

    def pause(self, name: str) -> None:
        """Publish no ticks of it until it is resumed. Raises `ConfigError` for a name that is not there."""
        self._change(name, lambda there: replace(there, paused=True))

    def resume(self, name: str) -> None:
        """Go on from now: what was due meanwhile is not caught up."""
        now = self._app.clock.time()
        self._change(name, lambda there: replace(there, paused=False, since=now) if there.paused else there)

    def remove(self, name: str) -> None:
        """Remove what was added at run time. Raises `ConfigError` for one of the app's code."""

        def decide(there: Record) -> None:
            if there.origin == "app":
                raise ConfigError(
                    f"schedule {name!r} is in the app's code: remove it there, or pause it (penstock beat pause)"
                )

        self._change(name, decide)

    def trigger(self, name: str) -> AsyncResult[Any]:
        """Publish its call now, besides its ticks; also when it is paused. Raises as a publish does, and
        `SignatureError` for one that somebody else has stored."""
        own = name in self._app.periodic
        record = self._record(name, None if own else self._run(self._tables.find(name)))
        if not own:
            check_vouched(record, self._app.pipeline.trust)
        message, now = unpack(record.message), self._app.clock.time()
        message.sent = now
        message.eta = None if message.eta is None else message.eta + now
        message.expires = None if message.expires is None else message.expires + now
        return self._app.client.send(self._app.tasks.get(message.task), message)

    def list(self) -> Sequence[Listed]:
        """All schedules, by name; those of the app's code as they are there."""
        now = self._app.clock.time()
        own, stored = own_lines(self._app), self._run(self._tables.read())
        written = {name: record_of(line) for name, line in own.items()}
        records = {name: reconciled(written.get(name), stored.get(name), now) for name in sorted({*own, *stored})}
        return [self._listed(record, own, now) for record in records.values() if record is not None]

    def leader(self) -> Position | None:
        """Who led when the position was written last, and when that was; `None`: no beat has ever led."""
        return self._run(self._tables.position())[0]

    # -- what they share

    def _listed(self, record: Record, own: Mapping[str, Line], now: float) -> Listed:
        message, coming = unpack(record.message), None
        line = None if record.paused else in_force(record, own)
        if line is not None:
            with suppress(Exception):  # a schedule of the app's own may raise anything
                tick = first_after(line, now)
                coming = tick.fires if tick is not None else None
        return Listed(
            record.name,
            message.task,
            message.queue,
            record.text,
            coming,
            record.paused,
            record.origin,
            record.jitter,
            record.catch_up,
            record.max_late,
        )

    def _change(self, name: str, decide: Callable[[Record], Record | None]) -> None:
        self._run(self._tables.change([name], lambda name, there: decide(self._record(name, there))))

    def _record(self, name: str, there: Record | None) -> Record:
        """The record, or that of a line of the app's code that no beat has stored yet."""
        if there is not None:
            return there
        written = self._app.periodic.get(name)
        if written is None:
            raise ConfigError(f"there is no schedule {name!r}; see penstock beat list")
        return record_of(replace(line_of(self._app, name, written), since=self._app.clock.time()))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._app.engine.run(call)


def _task(record: Record) -> str:
    try:
        return unpack(record.message).task
    except PenstockError:
        return "a task that cannot be read"
