"""Which queue a call goes to, where neither the call nor its task says: the setting `task_routes`, read and asked.

Of several routes the first that has an answer decides. What the call itself says is stronger than any route, and so is
what the task says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from penstock.by_name import ByName, by_name
from penstock.errors import ConfigError
from penstock.options import CallOptions, check_options
from penstock.queue import Queue
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.task import Task

Options = Mapping[str, Any]
"""What a route says: `queue`, and other options of a call."""
Function = Callable[..., Any]
"""`(name, args, kwargs, options, task=None)` → a queue's name, a dictionary of options, or `None`: no opinion."""
Route = ByName[Options] | Function
Routes = Mapping[Any, Any] | Function | str | Sequence[Any]
"""What `task_routes` takes: see `read_routes`."""

DESTINATION = frozenset({"queue", "exchange", "routing_key"})
"""Who says one of these says where a call goes, and nobody weaker is asked."""
FIXED = frozenset({"queue", "priority"})
"""What tables say of these holds for the task itself; the rest goes with each call."""
ROUTABLE = FIXED | DESTINATION | {
    "partition", "expires", "serializer", "compression", "time_limit", "soft_time_limit", "ignore_result", "headers"
}  # fmt: skip
"""The options of a call that a route may choose."""
NOTHING: Options = MappingProxyType({})


class Named:
    """A function that is imported when it is first asked: it may be in a module that needs the app."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._function: Function | None = None

    def __repr__(self) -> str:
        return repr(self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._function is None:
            from penstock.importing import named  # few need it

            found = named(self._name)
            if not callable(found):
                raise ConfigError(f"task_routes: {self._name!r} is {found!r}, and not a function")
            self._function = found
        return self._function(*args, **kwargs)


def read_routes(given: Any) -> tuple[Route, ...]:
    """The setting as it is asked: one route, or a list of them. Raises `ConfigError`."""
    if given is None:
        return ()
    return tuple(_read_route(one) for one in (given if isinstance(given, list | tuple) else (given,)))


def _read_route(given: Any) -> Route:
    if isinstance(given, ByName):
        return given
    if isinstance(given, str):
        return Named(given)
    if isinstance(given, Mapping):
        return by_name("task_routes", given, options_of)
    if isinstance(given, Sequence) and all(isinstance(one, tuple | list) and len(one) == 2 for one in given):
        return by_name("task_routes", given, options_of)
    if callable(given):
        function: Function = given
        return function
    raise ConfigError(
        "task_routes is a dictionary by task name, such as {'mail.*': 'mail'}, a function (name, args, kwargs, "
        f"options, task=None), the dotted name of one, or a list of those; not {given!r}"
    )


def options_of(where: str, said: Any) -> Options:
    """What a route said, as options of a call. Raises `ConfigError`."""
    if isinstance(said, Queue):
        said = said.name
    if isinstance(said, str):
        said = {"queue": said}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} must be a queue's name, or a dictionary of options, not {said!r}")
    options = {name: value for name, value in said.items() if value is not None}
    for name in options:
        if name not in ROUTABLE:
            raise ConfigError(f"{where}: a route cannot choose {name!r}{hint(str(name), ROUTABLE)}")
    check_options(where, CallOptions, options)
    return options


def fixed(routes: Sequence[Route], name: str) -> Options:
    """What the tables say of a task, whatever its arguments are."""
    for route in routes:
        found = route.first(name) if isinstance(route, ByName) else None
        if found is not None:
            return found
    return NOTHING


def asks(routes: Sequence[Route]) -> bool:
    """A function has a say, so that each call must be asked for."""
    return any(not isinstance(route, ByName) for route in routes)


def find(
    routes: Sequence[Route],
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Options,
    task: Task[..., Any] | None,
) -> Options:
    """What the routes say of a call. Raises `ConfigError` when a function answers with what is no route."""
    for route in routes:
        if isinstance(route, ByName):
            found = route.first(name)
        else:
            said = route(name, args, kwargs, dict(options), task=task)
            where = f"what the route {getattr(route, '__qualname__', route)!s} said of {name!r}"
            found = None if said is None else options_of(where, said)
        if found is not None:
            return found
    return NOTHING
