"""The app: what users do with tasks, calls, queues and periodic tasks, in that order.

Its settings are in `configured.py`, its engines in `connected.py`; a function becomes a task in `registering.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from penstock import apart
from penstock.batch import Batch
from penstock.beat.line import CatchUp
from penstock.beat.written import AddedSchedules, Written
from penstock.canvas.calls import Canvas, Signature
from penstock.canvas.chunks import STARMAP, starmap_in
from penstock.canvas.linked import refuse_links, short_text
from penstock.client import Client
from penstock.clock import Clock, SystemClock
from penstock.config import Settings
from penstock.connected import Connected
from penstock.decorating import BoundDecorator, Decorator
from penstock.dispatch import Observer
from penstock.errors import ConfigError
from penstock.generator_task import AsyncGeneratorTask, GeneratorTask
from penstock.middleware import Publishing, Running
from penstock.on_full import OnFull
from penstock.options import CallSettings, TaskSettings
from penstock.queue import check_name
from penstock.registering import made_task
from penstock.result import AsyncResult
from penstock.schedules import ScheduleLike
from penstock.spread import Spread, SpreadSettings, plan
from penstock.task import CoroutineTask, Task

if TYPE_CHECKING:
    from penstock.beat.timetable import Timetable
    from penstock.pressure.alarms import PressureEvent
    from penstock.pressure.telling import PressureHook

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")


class Penstock(Connected):
    """An app: tasks, settings, one broker. Making it opens nothing; the first call does."""

    def __init__(
        self,
        name: str,
        *,
        broker: str | None = None,
        clock: Clock | None = None,
        publishing: Sequence[Publishing] = (),
        running: Sequence[Running] = (),
        observers: Sequence[Observer] = (),
        **settings: Unpack[Settings],
    ) -> None:
        """`broker` is a URL: `sqlite:///q.db`, `memory://`…; without one, see `penstock.locate`. `settings` are those
        of `Config`.

        `publishing` and `running` are middleware, outermost first; `observers` see each call of the broker.
        Raises `ConfigError`.
        """
        check_name("app", name)
        if broker is not None:
            if settings.get("broker_url") not in (None, broker):
                raise ConfigError("broker and broker_url are the same setting; give one")
            settings["broker_url"] = broker
        self.publishing, self.running = tuple(publishing), tuple(running)
        self._periodic = AddedSchedules()
        self.pressure_hooks: list[PressureHook] = []
        super().__init__(name, settings, clock or SystemClock(), observers)
        self.client = Client(self)

    def __repr__(self) -> str:
        return f"<Penstock {self.name}>"

    # -- tasks

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, Generator[Y, Any, R]], /) -> GeneratorTask[P, R, Y]: ...
    @overload
    def task(self, function: Callable[P, Iterator[Y]], /) -> GeneratorTask[P, Any, Y]: ...
    @overload
    def task(self, function: Callable[P, AsyncIterator[Y]], /) -> AsyncGeneratorTask[P, Y | None, Y]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Unpack[TaskSettings]) -> BoundDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Unpack[TaskSettings]) -> Decorator: ...
    def task(  # type: ignore[misc]  # mypy does not match the unpacked options of overloads to those of this signature
        self, function: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Unpack[TaskSettings]
    ) -> Task[..., Any] | Callable[[Callable[..., Any]], Task[..., Any]]:
        """Make a function a task: `@app.task`, or `@app.task(queue="mail", …)` with `TaskOptions`, `name` and `base`.

        With `bind=True` the function's first parameter is the task itself. Raises `ConfigError` for an unknown or bad
        option, and for a name that another task has.
        """
        if function is not None:
            return self._register(function, bind, options)
        return lambda written: self._register(written, bind, options)

    def _register(self, function: Callable[..., Any], bind: bool, options: Mapping[str, Any]) -> Task[..., Any]:
        task = made_task(self, function, bind, options)
        self._tasks[task.name] = task
        return task

    def runnable(self, name: str) -> Task[..., Any] | None:
        """The task that a worker runs for that name: a registered one, or one that every worker has."""
        task = self._tasks.get(name)
        if task is None and name == STARMAP:
            task = Task()
            task.attach(self, starmap_in(self), STARMAP, False, {"acks_late": True, "on_full": "raise"})
        return task

    # -- calls

    def send_task(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[CallSettings],
    ) -> AsyncResult[Any]:
        """Publish a call by the task's name, which only the worker needs to know. What this app knows of the task
        applies. `connection`: see `Task.apply_async`."""
        task, message = self._named(name, tuple(args), kwargs or {}, options)
        return self.client.send(task, message, connection, options)

    async def asend_task(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[CallSettings],
    ) -> AsyncResult[Any]:
        """`send_task` without blocking the running loop."""
        task, message = self._named(name, tuple(args), kwargs or {}, options)
        return await self.client.asend(task, message, connection, options)

    def signature(
        self,
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Unpack[CallSettings],
    ) -> Signature[Any]:
        """A call by the task's name, as a value; see `Task.s`."""
        check_name("task", name)
        return Signature(name, tuple(args), kwargs or {}, options, immutable, self)

    def send(self, canvas: Canvas[R], connection: object | None = None) -> R:
        """Publish a signature's call, or whatever is composed of some; see `penstock.canvas.publish`. Returns the
        `AsyncResult` of its last task, or the `GroupResult` of those that it ends with. `connection`: see
        `Task.apply_async`."""
        if isinstance(canvas, Signature) and not (canvas.links or canvas.errors):
            task, message = self._named(canvas.task, canvas.args, canvas.kwargs, canvas.options)
            return cast(R, self.client.send(task, message, connection, canvas.options))
        from penstock.canvas.publish import send

        return cast(R, send(self, canvas, connection))

    async def asend(self, canvas: Canvas[R], connection: object | None = None) -> R:
        """`send` without blocking the running loop."""
        if isinstance(canvas, Signature) and not (canvas.links or canvas.errors):
            task, message = self._named(canvas.task, canvas.args, canvas.kwargs, canvas.options)
            return cast(R, await self.client.asend(task, message, connection, canvas.options))
        from penstock.canvas.publish import asend

        return cast(R, await asend(self, canvas, connection))

    def spread(
        self, call: Task[..., Any] | Signature[Any], items: Iterable[Any], **how: Unpack[SpreadSettings]
    ) -> Spread:
        """Publish `call` for each of `items`, slowly: over a time (`over="2h"`), or at a `rate` ("10/s"); returns when
        that is done. An item that is a tuple is arguments, anything else is the first one. Run again under the same
        `name`, it goes on where it was: see `penstock.spread`."""
        return apart.drive(plan(self, call, items, how))

    async def aspread(
        self, call: Task[..., Any] | Signature[Any], items: Iterable[Any], **how: Unpack[SpreadSettings]
    ) -> Spread:
        """`spread` without blocking the running loop."""
        return await apart.adrive(plan(self, call, items, how))

    @staticmethod
    def draw(canvas: Canvas[Any]) -> str:
        """The graph of a canvas, as the text of a Mermaid flowchart of up to 500 tasks."""
        from penstock.canvas.drawing import mermaid

        return mermaid(canvas)

    def _named(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        task = self._tasks.get(name)
        if task is not None:
            return task, self.client.prepare(task, args, kwargs, options)
        check_name("task", name)
        return None, self.client.prepare_unknown(name, args, kwargs, options)

    def batch(self, *, connection: object | None = None, on_full: OnFull | None = None) -> Batch:
        """`with app.batch():` or `async with app.batch():`, see `Batch`; inside a transaction with a `connection`."""
        return Batch(self, connection, on_full)

    def AsyncResult(self, task_id: str, task: Task[..., R] | None = None) -> AsyncResult[R]:
        """The result of an earlier call, by its public id."""
        check_name("task id", task_id)
        return AsyncResult(task_id, app=self, task=task)

    # -- queues

    def pause_queue(self, name: str) -> bool:
        """Let workers start nothing more of this queue until `resume_queue`, across restarts of everything. It accepts
        new work, what runs goes on, what comes back waits. Returns whether it was not paused before. Raises
        `Unsupported` where the broker cannot keep it."""
        return self.engine.run(self.engine.inspect.pause(self.conf.check_queue(name), self.conf.namespace))

    async def apause_queue(self, name: str) -> bool:
        """`pause_queue` without blocking the running loop."""
        return await self.engine.arun(self.engine.inspect.pause(self.conf.check_queue(name), self.conf.namespace))

    def resume_queue(self, name: str) -> bool:
        """Let workers go on with a paused queue; returns whether it was paused."""
        return self.engine.run(self.engine.inspect.resume(self.conf.check_queue(name), self.conf.namespace))

    async def aresume_queue(self, name: str) -> bool:
        """`resume_queue` without blocking the running loop."""
        return await self.engine.arun(self.engine.inspect.resume(self.conf.check_queue(name), self.conf.namespace))

    def on_pressure(self, hook: Callable[[PressureEvent], R]) -> Callable[[PressureEvent], R]:
        """Have `hook` called with each alarm that a worker of this app raises or clears, as `@app.on_pressure`: in a
        worker process, by a thread of its own. What it raises is logged."""
        self.pressure_hooks.append(hook)
        return hook

    # -- periodic tasks

    def add_periodic_task(
        self,
        schedule: ScheduleLike,
        sig: Signature[Any] | Task[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        *,
        jitter: float = 0.0,
        catch_up: CatchUp = "latest",
        max_late: float | None = None,
        **options: Unpack[CallSettings],
    ) -> str:
        """Add to the timetable of this app's code, as `beat_schedule` has it: the call of `sig`, with `args` before its
        own, by `schedule`. Returns its name. Raises `ConfigError`, also when another has that name."""
        call = sig.clone() if isinstance(sig, Signature) else Signature[Any](sig.name)
        refuse_links(call)
        call.args, call.kwargs = (*args, *call.args), {**call.kwargs, **(kwargs or {})}
        name = name or short_text(call)
        given = {
            "task": call.task,
            "schedule": schedule,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": {**call.options, **options},
            "jitter": jitter,
            "catch_up": catch_up,
            "max_late": max_late,
        }
        self._periodic.add(name, given)
        if self._conf is not None:  # else when settings are needed: their modules must not be read now
            self._periodic.check(name, self._conf.beat_schedule, self._conf.timezone)
        return name

    @property
    def periodic(self) -> Mapping[str, Written]:
        """The periodic tasks of this app's code, by name. Raises `ConfigError`."""
        conf = self.conf
        return self._periodic.with_settings(conf.beat_schedule, conf.timezone)

    @property
    def timetable(self) -> Timetable:
        """The timetable as it is stored in the broker, to look at and to change. Raises `Unsupported`."""
        from penstock.beat.timetable import Timetable

        return Timetable(self)

    # -- its end, and other users

    def close(self) -> None:
        """Close the engines; the next call opens them again."""
        self.client.refusals.close()
        super().close()

    def signed_in(self, broker_url: str) -> Penstock:
        """This app for another user of its broker: the same tasks and settings, and an engine of its own, opened at
        the first call by this URL. It declares no queues, which is no business of every user. Close it."""
        other = self._connected_to(broker_url)
        other.client = Client(other)
        return other
