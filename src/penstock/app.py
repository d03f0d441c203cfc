"""The app: its settings, its tasks, and the engine behind its broker URL. The only place that picks engines."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from penstock import apart
from penstock.backend import Backend
from penstock.batch import Batch
from penstock.beat.line import CatchUp
from penstock.beat.written import AddedSchedules, Written
from penstock.broker import Dispatch, Observer, check_queues
from penstock.canvas.calls import Canvas, Signature
from penstock.canvas.chunks import STARMAP, starmap_in
from penstock.canvas.linked import refuse_links, short_text
from penstock.client import Client
from penstock.clock import Clock, SystemClock
from penstock.config import Config, Settings
from penstock.configured import KNOWN, Configured
from penstock.decorating import BoundDecorator, Decorator
from penstock.definition import name_of, place_of, same_definition
from penstock.engine import Engine
from penstock.errors import ConfigError, Unsupported
from penstock.generator_task import AsyncGeneratorTask, GeneratorTask
from penstock.locate import prepare_folder
from penstock.middleware import Publishing, Running
from penstock.on_full import OnFull
from penstock.options import CallSettings, TaskOptions, TaskSettings, said
from penstock.queue import Queue, check_name
from penstock.result import AsyncResult
from penstock.schedules import ScheduleLike
from penstock.sources import REDIRECTED, Layer, checked
from penstock.spelling import hint
from penstock.spread import Spread, SpreadSettings, plan
from penstock.task import CoroutineTask, Task, class_options

if TYPE_CHECKING:
    from penstock.beat.timetable import Timetable
    from penstock.pressure.alarms import PressureEvent
    from penstock.pressure.telling import PressureHook

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "memory": "penstock.engines.memory",
        "sqlite": "penstock.engines.sqlite",
        **dict.fromkeys(("redis", "rediss", "unix", "sentinel"), "penstock.engines.redis"),
        **dict.fromkeys(("postgresql", "postgres"), "penstock.engines.postgres"),
        **dict.fromkeys(("penstock", "penstocks"), "penstock.engines.server"),
        **dict.fromkeys(("amqp", "amqps", "pyamqp", "rpc", "rpcs"), "penstock.engines.rabbitmq"),
        "django-db": "penstock.contrib.django",
    }
)
"""URL scheme → module with `open_engine(url, *, clock, queues, …) -> Engine`, imported at first use; the last part of
its name is the extra with its driver. Others come by the entry point group `penstock.engines`."""
BROKER_SETTINGS = ("durability",)
RESULT_SETTINGS = ("result_expires", "result_max_bytes")
"""What an opener may honour by taking it as a keyword. One that it does not take, and the app sets, is refused."""
DEFAULTS = Config()
GROUP = "penstock.engines"


class Penstock(Configured):
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
        self.clock: Clock = clock or SystemClock()
        self.publishing, self.running = tuple(publishing), tuple(running)
        self._observers = tuple(observers)
        self._periodic = AddedSchedules()
        self.pressure_hooks: list[PressureHook] = []
        self._engine: Engine | None = None
        self._broker: Dispatch | None = None
        self._results: Engine | None = None
        self._declares = True
        super().__init__(name, settings)
        self._opening, self._pid = threading.Lock(), os.getpid()
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
        if isinstance(function, Task) or not callable(function):
            raise ConfigError(f"{function!r} cannot be made a task: @app.task goes on a function")
        given = dict(options)
        name = given.pop("name", None) or name_of(function, self.name)
        check_name("task", name)
        base = given.pop("base", None) or Task
        if not (isinstance(base, type) and issubclass(base, Task)):
            raise ConfigError(f"task {name!r}: base must be a subclass of penstock.Task, not {base!r}")
        for option in given:
            if option not in TaskOptions.__struct_fields__:
                known = (*TaskOptions.__struct_fields__, "name", "base", "bind")
                from penstock.celery_options import unknown_task_option  # only on the way to an error

                raise ConfigError(f"task {name!r}: {unknown_task_option(option, known)}")
        other = self._tasks.get(name)
        if other is not None and not same_definition(other.function, function):
            raise ConfigError(
                f"two tasks are named {name!r}: {place_of(other.function)} and {place_of(function)}; "
                "give one of them name='…'"
            )
        task: Task[..., Any] = base()
        task.attach(self, function, name, bind, said({**class_options(base), **given}))
        if base is Task and task.is_generator:
            task.__class__ = AsyncGeneratorTask if task.is_coroutine else GeneratorTask
        elif base is Task and task.is_coroutine:
            task.__class__ = CoroutineTask
        self._tasks[name] = task
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

    # -- the engine

    def _at_work(self) -> bool:
        return self._engine is not None or self._results is not None

    @property
    def engine(self) -> Engine:
        """The open engine. Raises `ConfigError` for a URL that no engine serves, `BrokerError` when it cannot be
        opened."""
        return self._engine if self._engine is not None else self._open()

    @property
    def broker(self) -> Dispatch:
        """The engine's broker, behind the checks that all engines share."""
        if self._broker is None:
            self._open()
        return cast(Dispatch, self._broker)

    @property
    def results(self) -> Engine:
        """The open engine that keeps results: the broker's, or that of `result_backend`. Raises as `engine` does."""
        if self.result_url is None:
            return self.engine
        return self._results if self._results is not None else self._open_results(self.result_url)

    @property
    def keeps_results(self) -> bool:
        """There is an engine that keeps results."""
        return self.result_url is not None or self.engine.broker.features.results

    @property
    def backend(self) -> Backend:
        return self.results.backend

    def close(self) -> None:
        """Close the engines; the next call opens them again."""
        self.client.refusals.close()
        with self._opening:
            engines = [self._results, self._engine]
            self._engine = self._broker = self._results = None
        for engine in filter(None, engines):
            engine.close()

    def signed_in(self, broker_url: str) -> Penstock:
        """This app for another user of its broker: the same tasks and settings, and an engine of its own, opened at
        the first call by this URL. It declares no queues, which is no business of every user. Close it."""
        _ = self.conf  # settings that are read late would bring their own URL
        other = copy(self)
        other._engine = other._broker = other._results = None
        other._broker_url, other._declares, other._opening = broker_url, False, threading.Lock()
        other.client = Client(other)
        return other

    @contextmanager
    def redirected(self, clock: Clock | None = None, **settings: Unpack[Settings]) -> Iterator[Penstock]:
        """For tests: while the block lasts, these settings win over all others, engines are opened for it, and `clock`
        is the app's. What was open before stays open, and is there again afterwards, as all settings are; tasks that
        were registered meanwhile stay. No other thread may be using the app when it begins or ends. Raises
        `ConfigError`.
        """
        given = checked(settings, "", KNOWN, "app.redirected")
        before = (self._engine, self._broker, self._results)
        own, layers = self.clock, self._layers
        self._engine = self._broker = self._results = None
        try:
            self.clock = clock or own
            self._add(Layer(REDIRECTED, lambda: given))
            yield self
        finally:
            self.close()
            self.clock = own  # before settings are read again: some look at it
            self._use(layers)
            self._engine, self._broker, self._results = before

    def _lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            # Another thread may have held the lock when this process was forked; it does not live here.
            self._opening, self._pid = threading.Lock(), os.getpid()
        return self._opening

    def _open(self) -> Engine:
        with self._lock():
            if self._engine is None:
                kept = () if self.result_url is not None else RESULT_SETTINGS
                declared = self.conf.queues if self._declares else ()
                engine = self._opened(self.broker_url, (*BROKER_SETTINGS, *kept), declared)
                check_queues(engine.broker.features, self.conf.queues)
                self._broker = Dispatch(engine.broker, self._observers)
                self._engine = engine
            return self._engine

    def _open_results(self, url: str) -> Engine:
        with self._lock():
            return self._opened_results(url)

    def _opened_results(self, url: str) -> Engine:
        if self._results is None:
            self._results = self._opened(url, RESULT_SETTINGS, ())
        return self._results

    def _opened(self, url: str, names: Sequence[str], queues: Sequence[Queue]) -> Engine:
        from inspect import signature

        prepare_folder(url)
        opener = _opener(url)
        honoured = signature(opener).parameters
        settings: dict[str, Any] = {"clock": self.clock, "queues": queues}
        settings |= {"namespace": self.conf.namespace} if "namespace" in honoured else {}  # else: bounds hold in each
        if "bounds" in honoured and self.result_url is not None and any(queue.governed for queue in queues):
            from penstock.pressure.bounds import followed  # few need it

            settings["bounds"] = followed(self._opened_results(self.result_url), self.clock, self.conf.pressure_grace)
        for name in names:
            value = getattr(self.conf, name)
            if name in honoured:
                if value is not None:
                    settings[name] = value
            elif value != getattr(DEFAULTS, name):
                raise Unsupported(f"{name}={value!r}: engines of {_scheme(url)}:// do not honour it; leave it out")
        return opener(url, **settings)


def _opener(url: str) -> Callable[..., Engine]:
    from importlib import import_module
    from importlib.metadata import entry_points

    scheme = _scheme(url)
    module = ENGINES.get(scheme)
    if module is not None:
        try:
            return cast("Callable[..., Engine]", import_module(module).open_engine)
        except ModuleNotFoundError as error:
            extra = module.rpartition(".")[2]
            raise ConfigError(
                f"{scheme}:// needs a driver that is not installed ({error.name}): pip install 'penstock[{extra}]'"
            ) from error
    plugged = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme in plugged:
        return cast("Callable[..., Engine]", plugged[scheme].load())
    raise ConfigError(f"no engine serves {scheme}:// URLs{hint(scheme, {*ENGINES, *plugged})}")


def _scheme(url: str) -> str:
    return url.partition("://")[0]
