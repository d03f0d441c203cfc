"""Calls that are not made yet, as values, and what they are composed to: signatures, chains, groups and chords.

Nothing here talks to anything: a canvas is looked through, checked and published by `app.send`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from penstock.errors import ConfigError
from penstock.options import CallSettings

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.canvas.results import GroupResult  # noqa: F401  # named in a string below
    from penstock.result import AsyncResult

R = TypeVar("R")
C = TypeVar("C", bound="Canvas[Any]")

NOTHING: Mapping[str, Any] = {}


class Canvas(Generic[R]):
    """What can be published by `delay`: `R` is the type of its result object."""

    __slots__ = ("errors", "links", "options")

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
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> R:
        """`delay` with options, over those that it has."""
        return self.app.send(self._with(tuple(args), kwargs or NOTHING, options))

    async def aapply_async(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallSettings]
    ) -> R:
        """`apply_async` without blocking the running loop."""
        return await self.app.asend(self._with(tuple(args), kwargs or NOTHING, options))

    def _with(self: C, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> C:
        made = self.partial(args, kwargs) if args or kwargs else self.clone()
        made.options = {**made.options, **options}
        return made

    @property
    def app(self) -> Penstock:
        """The app of its tasks. Raises `ConfigError` when none of them is known to belong to one."""
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

    def partial(self: C, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> C:
        """A copy whose first tasks have these arguments before, and these names over, their own."""
        raise NotImplementedError

    def clone(self: C) -> C:
        """A copy: links and options of the one are no longer those of the other. Parts stay shared."""
        made = object.__new__(type(self))
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                setattr(made, name, getattr(self, name))
        return made

    def set(self: C, **options: Unpack[CallSettings]) -> C:
        """Set options of `apply_async`; returns itself."""
        self.options = {**self.options, **options}
        return self

    def stamp(self: C, **stamps: str) -> C:
        """Headers for every one of its tasks, also those that replace them: `self.request.headers`; returns itself."""
        self.options = {**self.options, "headers": {**(self.options.get("headers") or {}), **stamps}}
        return self

    def link(self, call: C) -> C:
        """Call that, too, with the value, when this has succeeded; returns it."""
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

    def _find_app(self) -> Penstock | None:
        return self._app

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Signature[R]:
        made = self.clone()
        if not self.immutable:
            made.args, made.kwargs = (*args, *self.args), {**self.kwargs, **kwargs}
        return made

    def _key(self) -> tuple[Any, ...]:
        return self.task, self.args, dict(self.kwargs), dict(self.options), self.immutable, self.links, self.errors

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        args = [repr(arg) for arg in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(args)})"


def short_text(call: Signature[Any]) -> str:
    """A call as it would be written, as a name."""
    text = repr(call)
    return text if len(text) <= 100 else f"{text[:80]}…"


def refuse_links(call: Signature[Any]) -> None:
    """For those who publish single calls: raise `ConfigError` for links, which nobody would follow."""
    if call.links or call.errors:
        raise ConfigError(
            f"{call!r} has links, which only a canvas follows: let it be a task that publishes that canvas"
        )


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

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        shown = [repr(task) for task in self.tasks[:3]] + ["…"] * (len(self.tasks) > 3)
        return f"{type(self).__name__}({', '.join(shown)})"


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

    def link(self, call: C) -> C:
        raise TypeError("a group has no one value to link to: use group(…) | call, or chord(group, call)")


class chord(Canvas["AsyncResult[Any]"]):
    """A group (the header), and a body that is given the list of its values. `chord(header)(body)` publishes it."""

    __slots__ = ("body", "header")

    def __init__(
        self, header: Canvas[Any] | Iterable[Canvas[Any]], body: Canvas[Any] | None = None, **options: Any
    ) -> None:
        super().__init__(options)
        self.header: group = header if isinstance(header, group) else group(header)
        self.body = body

    def __call__(self, body: Canvas[Any]) -> AsyncResult[Any]:
        made = self.clone()
        made.body = body
        return made.delay()

    def parts(self) -> Iterator[Canvas[Any]]:
        if self.body is None:
            raise ConfigError(f"{self!r} has no body: chord(header, body), or chord(header)(body)")
        return iter((self.header, self.body))

    def _find_app(self) -> Penstock | None:
        parts = (self.header,) if self.body is None else (self.header, self.body)
        return next((app for part in parts if (app := part._find_app()) is not None), None)

    def partial(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> chord:
        made = self.clone()
        made.header = self.header.partial(args, kwargs)
        return made

    def __repr__(self) -> str:
        return f"chord({self.header!r}, {self.body!r})"
