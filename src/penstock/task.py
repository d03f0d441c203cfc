"""A task: a function with a name and options, called directly like the function, or later by a worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast

from penstock import request as requests
from penstock.admission import check_here
from penstock.canvas.calls import Canvas, Signature
from penstock.canvas.chunks import chunks, map_of, starmap_of
from penstock.canvas.linked import LinkedSettings
from penstock.cautious import asend_many, send_many
from penstock.codec import Arguments, Returned, compression_of
from penstock.errors import Replace, Retry, Snooze
from penstock.generators import annotated, driven, is_generator
from penstock.hooks import HOOKS
from penstock.hooks import ErrorInfo as ErrorInfo
from penstock.limit import TaskLimit
from penstock.on_full import OnFull, only_single
from penstock.options import CallSettings, TaskOptions, check_seconds, unix_time
from penstock.outcome import Progress, State
from penstock.partials import Publishes
from penstock.request import Request
from penstock.retry import RetryPolicy

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.eager_result import EagerResult
    from penstock.result import AsyncResult

P = ParamSpec("P")
R = TypeVar("R")

PROGRESS_INTERVAL = 0.1
"""Seconds between two notes of progress of one task; those in between are dropped, but not the last."""

_log = logging.getLogger("penstock.task")
_COROUTINE = 0x80 | 0x100 | 0x200  # inspect: CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR


class Task(Publishes, Generic[P, R]):
    """A registered task. Made by `@app.task`; subclass it for hooks or shared options, and pass it as `base=`.

    A subclass may set options as class attributes (`max_retries = 5`), which `@app.task(…)` overrides, and redefine
    the hooks. It is made without arguments, once per task.
    """

    app: Penstock
    name: str
    function: Callable[..., Any]
    """The function as it was written; with `bind` its first parameter is this task."""
    run: Callable[..., Any]
    """The function as it is called with the arguments of a call only."""
    bind: bool
    is_coroutine: bool
    """It is awaited: a coroutine, or an async generator."""
    is_generator: bool
    """The function yields parts; `run` does not, but publishes them."""
    declared: Mapping[str, Any]
    """The options that `@app.task(…)` and its class name."""
    options: TaskOptions
    own: frozenset[str]
    """Names of the options that are the task's own: declared, or annotated. They are stronger than routes."""
    routed: bool
    """Each call is to be routed: see `penstock.routing`."""
    inherits_priority: bool
    """A call that a task makes is as urgent as that one, unless it says otherwise."""
    policy: RetryPolicy
    hooks: frozenset[str]
    """Which of the hooks do anything."""
    max_retries: int | None
    limit: TaskLimit | None
    """How many of its calls may start in a time, and run at a time."""
    calls_plainly: bool
    """Nothing is to be done for a call without options but to serialize its arguments."""
    cautious: bool
    """A call is looked at before it is published, or goes on when its queue is full: see `penstock.admission`."""

    _arguments: Arguments | None
    _returned: Returned | None
    _parts: Returned | None

    def attach(
        self, app: Penstock, function: Callable[..., Any], name: str, bind: bool, declared: Mapping[str, Any]
    ) -> None:
        """Make this the task `name` of `app`. Raises `ConfigError` for options that do not go together."""
        self.app, self.name, self.function, self.bind, self.declared = app, name, function, bind, declared
        self.run = MethodType(function, self) if bind else function
        code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
        flags = code.co_flags if code is not None else 0
        self.is_coroutine, self.is_generator = bool(flags & _COROUTINE), is_generator(flags)
        if self.is_generator:
            self.run = driven(self, self.run)
        self.hooks = frozenset(hook for hook in HOOKS if getattr(type(self), hook) is not getattr(Task, hook))
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self.settle(app.conf.task_options(name, declared))

    def settle(self, options: TaskOptions) -> None:
        """Take these options: those that the settings come to now."""
        conf = self.app.conf
        self.options = options
        self.own = frozenset(self.declared.keys() | conf.annotation(self.name).keys())
        self.routed = conf.asks_routes(self.name, self.own)
        decided = self.own | conf.fixed_route(self.name).keys()
        self.inherits_priority = conf.task_inherit_parent_priority and "priority" not in decided
        self.policy = options.policy()
        self.max_retries = options.max_retries
        self.limit = options.limit()
        pipeline = self.app.pipeline
        self.format = pipeline.serializer(options.serializer or conf.task_serializer)
        self.result_format = pipeline.serializer(conf.result_serializer or options.serializer or conf.task_serializer)
        self.compression = compression_of(options.compression or conf.task_compression)
        keyed = options.unique is not False or self.limit is not None or options.partition is not None
        self.calls_plainly = options.lifetime is None and not keyed and self.compression is None
        check_here(self.name, options)
        self.cautious = options.cautious
        self._arguments = self._returned = self._parts = None  # they read what was accepted before

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(f"a task cannot be pickled; pass its name, {self.name!r}")

    # -- calling it here

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function itself, here and now. A coroutine task returns its coroutine."""
        if not self.bind:
            return cast(R, self.function(*args, **kwargs))
        if self.is_coroutine and not self.is_generator:
            return cast(R, self._run_directly(args, kwargs))
        token = requests.current.set(requests.direct(self.name))
        try:
            return cast(R, self.function(self, *args, **kwargs))
        finally:
            requests.current.reset(token)

    async def _run_directly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = requests.current.set(requests.direct(self.name))
        try:
            return await self.function(self, *args, **kwargs)
        finally:
            requests.current.reset(token)

    def apply(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> EagerResult[R]:
        """Run it here and now as a worker would, with its retries (without their delays) and hooks; time limits are not
        enforced. Errors of the task are in the result."""
        from penstock.eager import apply

        return apply(self, tuple(args), kwargs or {}, options)

    async def aapply(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> EagerResult[R]:
        """`apply` for coroutine tasks inside a running loop."""
        from penstock.eager import aapply

        return await aapply(self, tuple(args), kwargs or {}, options)

    # -- calling it later

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Publish a call with these arguments. When it returns, the call is in the broker's durable storage.

        Raises `TypeError` when the arguments do not fit, `QueueFull`, `BrokerUnavailable`; then nothing was published.
        """
        client = self.app.client
        return client.send(self, client.prepare(self, args, kwargs))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` without blocking the running loop."""
        client = self.app.client
        return await client.asend(self, client.prepare(self, args, kwargs))

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[LinkedSettings],
    ) -> AsyncResult[R]:
        """`delay` with options (see `CallOptions`), and with links (see `Canvas.link`). Raises `ConfigError` for a bad
        one.

        `connection` is one of psycopg, SQLAlchemy or Django to the broker's own database: the task exists if and only
        if the transaction commits that it is in. It is known, and its result can be waited for, from then on.
        """
        if "link" in options or "link_error" in options:
            return self.app.send(self.signature(args, kwargs, **options), connection)
        client = self.app.client
        return client.send(self, client.prepare(self, tuple(args), kwargs or {}, options), connection, options)

    async def aapply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[LinkedSettings],
    ) -> AsyncResult[R]:
        """`apply_async` without blocking the running loop; `connection` is then one that is awaited."""
        if "link" in options or "link_error" in options:
            return await self.app.asend(self.signature(args, kwargs, **options), connection)
        client = self.app.client
        message = client.prepare(self, tuple(args), kwargs or {}, options)
        return await client.asend(self, message, connection, options)

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` right after the transaction of Django's default connection has committed; at once outside of one, and
        never if it is rolled back. A crash between the commit and the publish loses the call.

        The result has its id from then on. Errors of the publish come out of the commit."""
        client = self.app.client
        return client.send_on_commit(self, client.prepare(self, args, kwargs), None)

    def apply_async_on_commit(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[CallSettings],
    ) -> AsyncResult[R]:
        """`delay_on_commit` with options, for a Django connection, or an SQLAlchemy session, awaited ones included.
        Raises `ConfigError` for a connection that does not tell of commits."""
        only_single("a call on commit", options)
        client = self.app.client
        message = client.prepare(self, tuple(args), kwargs or {}, options)
        return client.send_on_commit(self, message, connection)

    def delay_many(
        self, calls: Iterable[tuple[Any, ...] | Signature[Any]], *, on_full: OnFull | None = None
    ) -> list[AsyncResult[R]]:
        """Publish many calls, each a tuple of arguments or a signature of this task, in as few transactions as the
        broker allows. `QueueFull` (and a note on any other error) says how many were published before it. `on_full` is
        what becomes of those that a full queue refuses."""
        return send_many(self.app.client, self, calls, on_full)

    async def adelay_many(
        self, calls: Iterable[tuple[Any, ...] | Signature[Any]], *, on_full: OnFull | None = None
    ) -> list[AsyncResult[R]]:
        """`delay_many` without blocking the running loop."""
        return await asend_many(self.app.client, self, calls, on_full)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """This call as a value. In a chain it is given the value of what is before it as its first argument."""
        return Signature(self.name, args, kwargs, app=self.app)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """This call as a value, with all of its arguments: it takes none of what is before it."""
        return Signature(self.name, args, kwargs, immutable=True, app=self.app)

    def signature(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        immutable: bool = False,
        **options: Unpack[LinkedSettings],
    ) -> Signature[R]:
        """This call as a value, with options of `apply_async`."""
        call: Signature[R] = Signature(self.name, tuple(args), kwargs or {}, immutable=immutable, app=self.app)
        return call.set(**options)

    subtask = signature

    def map(self, items: Iterable[Any]) -> Signature[list[R]]:
        """One task that calls this function for each of the items; its value is the list of values."""
        return map_of(self, items)

    def starmap(self, calls: Iterable[Sequence[Any]]) -> Signature[list[R]]:
        """One task that calls this function with each of the tuples of arguments."""
        return starmap_of(self, calls)

    def chunks(self, calls: Iterable[Sequence[Any]], size: int) -> chunks:
        """A group whose members call this function with up to `size` of the tuples each."""
        return chunks(self, calls, size)

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:
        """The result of an earlier call of this task."""
        return self.app.AsyncResult(task_id, task=self)

    # -- inside a run (bind=True)

    @property
    def request(self) -> Request:
        """The call that this thread or coroutine runs for."""
        current = requests.current.get()
        if current is None or current.message.task != self.name:
            return requests.direct(self.name)
        return current

    @property
    def cancelled(self) -> bool:
        """The call was revoked, or lost to another worker: stop, what it returns is not used."""
        current = requests.current.get()
        return current is not None and current.cancelled

    def retry(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        exc: BaseException | None = None,
        countdown: float | None = None,
        eta: datetime | float | None = None,
        max_retries: int | None = None,
        throw: bool = True,
    ) -> Retry:
        """Raise (or with `throw=False` return) the `Retry` that runs this call again, in `countdown` seconds or at
        `eta`.

        `raise self.retry(exc=error)` tells the reader, too, that the function ends here. When no retries are left the
        task fails with `exc`, or the error being handled. `args` and `kwargs` replace those of the call.
        """
        if self.request.called_directly and exc is not None:
            raise exc
        if countdown is not None:
            check_seconds("countdown", countdown)
        retry = Retry(
            exc=exc,
            countdown=countdown,
            eta=None if eta is None else unix_time("eta", eta),
            max_retries=max_retries,
            args=None if args is None else tuple(args),
            kwargs=None if kwargs is None else dict(kwargs),
        )
        if throw:
            raise retry from exc
        return retry

    def snooze(self, seconds: float) -> Snooze:
        """Raise what runs this call again in so many seconds, because it could do nothing now. It spends no retry.

        `raise self.snooze(…)` tells the reader, too, that the function ends here.
        """
        raise Snooze(seconds)

    def replace(self, call: Canvas[Any]) -> Replace:
        """Raise what runs another call, or a whole canvas, in the place of this one: what comes of it is the result of
        this, and goes to what follows. `raise self.replace(…)` tells the reader, too, that the function ends here.
        Called directly, the other task is not run. Raises `TypeError` for what is no canvas."""
        if not isinstance(call, Canvas):
            raise TypeError(f"replace takes a signature, such as task.s(…), or a canvas, not {type(call).__name__}")
        raise Replace(call)

    def add_to_chord(self, call: Canvas[Any]) -> None:
        """Let the chord that this call is a member of wait for another one, too, whose value goes right after this
        one's. It is published when this has succeeded. Raises `ConfigError` for what is no member of a chord."""
        from penstock.canvas.standing import add_member  # few need it

        add_member(self.request, call)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this call has come, in its own units. At most ten a second are kept. Never fails the task."""
        request = self.request
        if request.called_directly or request.is_eager:
            return
        now = self.app.clock.monotonic()
        if now - request.noted < PROGRESS_INTERVAL and done != total:
            return
        request.noted = now
        try:
            self.app.client.note(request.key, Progress(done, total, note))
        except Exception:
            _log.warning("progress of %s could not be noted", self.name, exc_info=True)

    # -- hooks: what a subclass may redefine. Errors in them are logged, and change nothing.

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Just before the function is called."""

    def on_success(self, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The function returned."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], einfo: ErrorInfo
    ) -> None:
        """The task failed for good."""

    def on_retry(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], einfo: ErrorInfo
    ) -> None:
        """The task will run again."""

    def after_return(
        self,
        status: State,
        retval: Any,
        task_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        einfo: ErrorInfo | None,
    ) -> None:
        """After the hooks above; `retval` is the value or the error."""

    # -- for those who run it

    @property
    def codec(self) -> Arguments:
        """Made at first use, when the names that the annotations use are there. Raises `ConfigError`."""
        if self._arguments is None:
            self._arguments = Arguments(self.name, self.function, bound=self.bind, reader=self.app.pipeline.reader)
        return self._arguments

    @property
    def returned(self) -> Returned:
        """How results are written and read. Raises `ConfigError`."""
        if self._returned is None:
            annotation, reader = self.codec.signature.return_annotation, self.app.pipeline.reader
            if self.is_generator:
                annotation = annotated(annotation)[1]
            self._returned = Returned(self.name, annotation, reader=reader)
        return self._returned

    @property
    def parts(self) -> Returned:
        """How what a run publishes is written and read. Raises `ConfigError`."""
        if self._parts is None:
            returned = self.codec.signature.return_annotation
            annotation = annotated(returned)[0] if self.is_generator else Any
            self._parts = Returned(self.name, annotation, reader=self.app.pipeline.reader, what="a part")
        return self._parts

    def arguments(self, body: bytes, content_type: str = "json") -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a message's body. Raises `DecodeError`."""
        return (self._arguments or self.codec).decode(body, content_type)

    def body(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, str]:
        """The arguments as a message carries them, and their content type. Raises `TypeError`, `EncodeError`."""
        body = self.codec.encode(args, kwargs, self.format)
        return self.app.pipeline.compress(body, self.format.name, self.compression)

    def encode_result(self, value: Any) -> bytes:
        """What the function returned, in the format of results. Raises `EncodeError`."""
        return (self._returned or self.returned).encode(value, self.result_format)


class CoroutineTask(Task[P, R]):
    """A task whose function is a coroutine: called directly, it returns the coroutine."""

    if TYPE_CHECKING:
        # The one difference to a plain task, and it is the point of it.
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
            ...


def class_options(base: type[Task[..., Any]]) -> dict[str, Any]:
    """The options that a subclass of `Task` sets as class attributes."""
    found: dict[str, Any] = {}
    for kind in reversed(base.__mro__):
        if kind in (Task, CoroutineTask) or not issubclass(kind, Task):
            continue
        found.update({name: value for name, value in vars(kind).items() if name in TaskOptions.__struct_fields__})
    return found
