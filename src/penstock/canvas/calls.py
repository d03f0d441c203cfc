"""Calls that are not made yet, as values, and what they are composed to: signatures, chains, groups and chords.

Nothing here talks to anything: a canvas is looked through, checked and published by `app.send`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from penstock.canvas.linked import Calls, LinkedSettings, refuse_links
from penstock.canvas.nesting import measure
from penstock.canvas.plain_form import PlainForm, additions, kind_of, other_types
from penstock.errors import ConfigError, UnknownTask
from penstock.queue import check_name
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.canvas.results import GroupResult  # noqa: F401  # named in a string below
    from penstock.canvas.stamping import StampingVisitor
    from penstock.eager_result import EagerResult
    from penstock.result import AsyncResult
    from penstock.task import Task

R = TypeVar("R")
C = TypeVar("C", bound="Canvas[Any]")
S = TypeVar("S", bound="Signature[Any]")

NOTHING: Mapping[str, Any] = {}
SHOWN = 3
"""Levels of a canvas in its text."""


class Canvas(PlainForm, Generic[R]):
    """What can be published by `delay`: `R` is the type of its result object."""

    __slots__ = ("errors", "links", "options")
    is_task = False

    def __init__(self, options: Mapping[str, Any] = NOTHING) -> None:
        self.options = options
        """Those of `apply_async`. Of something composed they are for all of its tasks that have none of their own, but
        `countdown` and `eta`, which are for the first."""
        self.links: tuple[Canvas[Any], ...] = ()
        self.errors: tuple[Signature[Any], ...] = ()

    # -- publishing

    def delay(self, *args: Any, **kwargs: Any) -> R:
        """Publish it. Arguments go before (and names over) those of its first tasks. See `Task.delay`."""
        return self.app.send(self.partial(args, kwargs) if args or kwargs else self)

    async def adelay(self, *args: Any, **kwargs: Any) -> R:
        """`delay` without blocking the running loop."""
        return await self.app.asend(self.partial(args, kwargs) if args or kwargs else self)

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[LinkedSettings],
    ) -> R:
        """`delay` with options, over those that it has, and with more links. `connection`: see `Task.apply_async`."""
        return self.app.send(self.clone(args, kwargs, **options), connection)

    async def aapply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        connection: object | None = None,
        **options: Unpack[LinkedSettings],
    ) -> R:
        """`apply_async` without blocking the running loop."""
        return await self.app.asend(self.clone(args, kwargs, **options), connection)

    @property
    def app(self) -> Penstock:
        """The app of its tasks. Raises `ConfigError` when none of them is known to belong to one, or it is too
        deep or large."""
        measure(self)
        found = self._find_app()
        if found is None:
            raise ConfigError(f"{self!r} belongs to no app: make it by task.s(…) or app.signature(…), or use app.send")
        return found

    def _find_app(self) -> Penstock | None:
        return next((app for part in self.parts() if (app := part._find_app()) is not None), None)

    # -- putting together

    def parts(self) -> Iterator[Canvas[Any]]:
        """What it is composed of, in order."""
        return iter(())

    def inner(self) -> Iterable[Canvas[Any]]:
        """All canvases in it, those that follow it, too."""
        return itertools.chain(self.parts(), self.links, self.errors)

    def partial(self: C, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> C:
        """A copy whose first tasks have these arguments before, and these names over, their own."""
        raise NotImplementedError

    def clone(
        self: C, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[LinkedSettings]
    ) -> C:
        """A copy, with arguments before its own (see `partial`), options over its own, and more links. Links and
        options of the one are no longer those of the other; parts stay shared."""
        args = tuple(args)
        measure(self)
        made = self.partial(args, kwargs or NOTHING) if args or kwargs else self._copy()
        return made.set(**options) if options else made

    def _copy(self: C) -> C:
        made = object.__new__(type(self))
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                setattr(made, name, getattr(self, name))
        return made

    def set(self: C, **options: Unpack[LinkedSettings]) -> C:
        """Set options of `apply_async`, and add links; returns itself."""
        self.linked(options.pop("link", ()), options.pop("link_error", ()))
        self.options = {**self.options, **options}
        return self

    def stamp(self: C, visitor: StampingVisitor | None = None, **stamps: str) -> C:
        """Headers for every one of its tasks, also those that replace them: `self.request.headers`; and those that the
        visitor gives each part. Returns itself."""
        if visitor is not None:
            measure(self)
            visitor.go_through(self)
        if stamps:
            self.options = {**self.options, "headers": {**(self.options.get("headers") or {}), **stamps}}
        return self

    def linked(self: C, link: Calls, link_error: Calls) -> C:
        """`link` and `link_error` for each of these; returns itself."""
        for call in (link,) if isinstance(link, Canvas) else link or ():
            self.link(call)
        for call in (link_error,) if isinstance(link_error, Canvas) else link_error or ():
            self.link_error(call)  # type: ignore[arg-type]  # refused there
        return self

    def link(self, call: C) -> C:
        """Call that, too, with the value, when this has succeeded; returns it. Raises `TypeError` for what is no
        canvas."""
        if not isinstance(call, Canvas):
            raise TypeError(f"link takes a signature, such as task.s(…), or a canvas, not {type(call).__name__}")
        self.links = (*self.links, call)
        return call

    def link_error(self, call: Signature[R]) -> Signature[R]:
        """Call that, once, when this has failed, with what is known of the error: a dictionary of texts `id`, `task`,
        `error`, `message` and `note`. Returns it. A part of it that was only revoked does not count."""
        if not isinstance(call, Signature):
            raise TypeError(f"link_error takes a signature, not {type(call).__name__}: nothing follows an error call")
        self.errors = (*self.errors, call)
        return call

    def on_error(self: C, call: Signature[Any]) -> C:
        """`link_error`; returns itself."""
        self.link_error(call)
        return self

    def __repr__(self) -> str:
        return self._text(SHOWN)

    def _text(self, levels: int) -> str:
        raise NotImplementedError

    @classmethod
    def from_plain(cls, data: Any) -> Canvas[Any]:
        """The way back, of an argument that is annotated so. It belongs to no app: `maybe_signature(it, app=app)`."""
        made = read_plain(data)
        if not isinstance(made, cls):
            raise TypeError(f"a {type(made).__name__} is no {cls.__name__}")
        return made

    def __or__(self, other: Canvas[Any]) -> chain | chord:
        if not isinstance(other, Canvas):
            return NotImplemented
        if isinstance(self, group) and not self.links:
            return chord(self, other)
        return chain(self, other)


class Signature(Canvas["AsyncResult[R]"], Generic[R]):
    """One call as a value: what `task.s(…)` returns. With `immutable` (`task.si`) it takes no value of what is
    before it."""

    __slots__ = ("_app", "args", "immutable", "kwargs", "task")
    is_task = True

    def __init__(
        self,
        task: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = NOTHING,
        options: Mapping[str, Any] = NOTHING,
        immutable: bool = False,
        app: Penstock | None = None,
    ) -> None:
        super().__init__(options)
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.immutable = immutable
        self._app = app

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run the function, here and now; a coroutine task returns its coroutine. See `Task.__call__`."""
        made = self.partial(args, kwargs)
        value: R = made.type(*made.args, **made.kwargs)
        return value

    def apply(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None) -> EagerResult[R]:
        """Run it here and now as a worker would; see `Task.apply`. Raises `ConfigError` for one with links."""
        refuse_links(self)
        made = self.clone(args, kwargs)
        return made.type.apply(made.args, made.kwargs, **made.options)

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def type(self) -> Task[..., R]:
        """The task. Raises `UnknownTask` when its app does not know it."""
        found = self.app.tasks.get(self.task)
        if found is None:
            raise UnknownTask(f"no task {self.task!r} is registered in this app{hint(self.task, self.app.tasks)}")
        return found

    def set(self: S, *, immutable: bool | None = None, **options: Unpack[LinkedSettings]) -> S:
        """Set options of `apply_async`, add links, make it immutable or not; returns itself."""
        if immutable is not None:
            self.immutable = immutable
        return super().set(**options)

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[LinkedSettings],
    ) -> Signature[R]:
        """A copy with these in the place of its own arguments, and options over its own."""
        made = self.clone(**options)
        made.args = self.args if args is None else tuple(args)
        made.kwargs = self.kwargs if kwargs is None else kwargs
        return made

    def _find_app(self) -> Penstock | None:
        return self._app

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Signature[R]:
        made = self.clone()
        if not self.immutable:
            made.args, made.kwargs = (*args, *self.args), {**self.kwargs, **kwargs}
        return made

    def _own_plain(self) -> dict[str, Any]:
        return {"task": self.task, "args": list(self.args), "kwargs": dict(self.kwargs), "immutable": self.immutable}

    def _key(self) -> tuple[Any, ...]:
        return self.task, self.args, dict(self.kwargs), dict(self.options), self.immutable, self.links, self.errors

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def _text(self, levels: int) -> str:
        args = [repr(arg) for arg in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(args)})"


class Composed(Canvas[R]):
    """Several canvases in some order."""

    __slots__ = ("tasks",)

    def __init__(self, tasks: tuple[Any, ...]) -> None:
        super().__init__()
        if len(tasks) == 1 and not isinstance(tasks[0], Canvas) and isinstance(tasks[0], Iterable):
            tasks = tuple(tasks[0])
        for number, task in enumerate(tasks, 1):
            if not isinstance(task, Canvas):
                raise TypeError(
                    f"{type(self).__name__}: part {number} is {type(task).__name__}; give signatures, such as "
                    "task.s(…), or what is composed of them"
                )
        self.tasks: tuple[Canvas[Any], ...] = tasks

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """`delay`."""
        return self.delay(*args, **kwargs)

    def parts(self) -> Iterator[Canvas[Any]]:
        return iter(self.tasks)

    def _own_plain(self) -> dict[str, Any]:
        return {"tasks": [task._plain() for task in self.tasks]}

    def __len__(self) -> int:
        return len(self.tasks)

    def _text(self, levels: int) -> str:
        shown = [task._text(levels - 1) for task in self.tasks[: 3 * (levels > 0)]]
        return f"{type(self).__name__}({', '.join(shown + ['…'] * (len(self.tasks) > len(shown)))})"


class chain(Composed["AsyncResult[Any]"]):
    """One after the other; each is given the value of the one before. Its result is that of the last."""

    __slots__ = ()

    def __init__(self, *tasks: Canvas[Any] | Iterable[Canvas[Any]]) -> None:
        super().__init__(tasks)
        # Flat, so that a long one that was put together by `|` is no deep one. One with links of its own stays whole.
        if any(type(task) is chain and task.is_plain() for task in self.tasks):
            flat: list[Canvas[Any]] = []
            for task in self.tasks:
                flat.extend(task.tasks if type(task) is chain and task.is_plain() else (task,))
            self.tasks = tuple(flat)

    def is_plain(self) -> bool:
        return not (self.links or self.errors or self.options)

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> chain:
        made = self.clone()
        if made.tasks:
            made.tasks = (made.tasks[0].partial(args, kwargs), *made.tasks[1:])
        return made


class group(Composed["GroupResult"]):
    """All at once. Its value is the list of theirs, in their order; what follows it waits for all."""

    __slots__ = ()

    def __init__(self, *tasks: Canvas[Any] | Iterable[Canvas[Any]]) -> None:
        super().__init__(tasks)

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> group:
        made = self.clone()
        made.tasks = tuple(task.partial(args, kwargs) for task in self.tasks)
        return made

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Spread its tasks over time: a `countdown` of `start` seconds for the first, `step` more for each next, and
        from the beginning again after `stop`. Returns itself."""
        most = len(self.tasks) if stop is None or step <= 0 else int((stop - start) / step) + 1
        self.tasks = tuple(
            task.clone(countdown=start + number % max(1, most) * step) for number, task in enumerate(self.tasks)
        )
        return self

    def link(self, call: C) -> C:
        raise TypeError("a group has no one value to link to: use group(…) | call, or chord(group, call)")


class chord(Canvas["AsyncResult[Any]"]):
    """A group (the header), and a body that is given the list of its values. `chord(header)(body)` publishes it."""

    __slots__ = ("body", "header")

    def __init__(
        self,
        header: Canvas[Any] | Iterable[Canvas[Any]],
        body: Canvas[Any] | None = None,
        **options: Unpack[LinkedSettings],
    ) -> None:
        super().__init__()
        self.header: group = header if isinstance(header, group) else group(header)
        self.body = body
        self.set(**options)

    def __call__(self, body: Canvas[Any] | None = None, **options: Unpack[LinkedSettings]) -> AsyncResult[Any]:
        made = self.clone(**options)
        made.body = self.body if body is None else body
        return made.delay()

    def parts(self) -> Iterator[Canvas[Any]]:
        if self.body is None:
            raise ConfigError(f"{self!r} has no body: chord(header, body), or chord(header)(body)")
        return iter((self.header, self.body))

    def inner(self) -> Iterable[Canvas[Any]]:
        return (self.header, *((self.body,) if self.body is not None else ()), *self.links, *self.errors)

    def _own_plain(self) -> dict[str, Any]:
        return {"header": self.header._plain(), "body": None if self.body is None else self.body._plain()}

    def _find_app(self) -> Penstock | None:
        parts = (self.header,) if self.body is None else (self.header, self.body)
        return next((app for part in parts if (app := part._find_app()) is not None), None)

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> chord:
        made = self.clone()
        made.header = self.header.partial(args, kwargs)
        return made

    def _text(self, levels: int) -> str:
        if levels <= 0:
            return "chord(…)"
        return f"chord({self.header._text(levels)}, {'None' if self.body is None else self.body._text(levels - 1)})"


def read_plain(data: Any, app: Penstock | None = None, level: int = 0) -> Canvas[Any]:
    """What `to_plain` made. Raises `ConfigError` for anything else: it may have come from anywhere."""
    kind = kind_of(data, level)

    def part(inner: Any) -> Canvas[Any]:
        return read_plain(inner, app, level + 1)

    made: Canvas[Any]
    match data:
        case {"task": str(task), "args": list() | tuple() as args, "kwargs": dict() as kwargs}:
            check_name("task", task)
            made = Signature(task, tuple(args), kwargs, immutable=bool(data["immutable"]), app=app)
        case {"tasks": list() as tasks}:
            made = (chain if kind == "chain" else group)(*map(part, tasks))
        case {"header": header, "body": body}:
            made = chord(part(header), None if body is None else part(body))
        case _:
            raise other_types(kind, data)
    made.options, links, errors = additions(kind, data)
    try:
        return made.linked(map(part, links), map(part, errors))
    except TypeError as error:
        raise ConfigError(f"a {kind} as plain data: {error}") from error
