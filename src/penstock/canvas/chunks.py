"""Many calls of one task in few: `task.map`, `task.starmap` and `task.chunks`. They run one after the other, as one
task of the worker's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from penstock.canvas.calls import Signature, group
from penstock.errors import ConfigError, UnknownTask

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.codec import Format
    from penstock.task import Task

STARMAP = "penstock.starmap"
"""The task that calls another once for each of many tuples of arguments."""


def map_of(task: Task[..., Any], items: Iterable[Any]) -> Signature[list[Any]]:
    return starmap_of(task, [(item,) for item in items])


def starmap_of(task: Task[..., Any], calls: Iterable[Sequence[Any]]) -> Signature[list[Any]]:
    """Raises `ConfigError` for a coroutine task and for one with a limit, `TypeError` for arguments that do not fit."""
    if task.is_coroutine:
        raise ConfigError(f"{task.name} is a coroutine: map, starmap and chunks call plain functions; use a group")
    if task.limit is not None:
        raise ConfigError(
            f"{task.name} has a limit, and map, starmap and chunks call its function past it, all in one task: use a "
            "group, delay_many or app.spread"
        )
    rows, form = [tuple(call) for call in calls], _form(task.app)
    for row in rows:
        task.codec.encode(row, {}, form)
    queue = {} if task.options.queue is None else {"queue": task.options.queue}
    return Signature(STARMAP, (task.name, rows), options=queue, immutable=True, app=task.app)


class chunks(group):
    """The calls of one task, `size` of them in each member: what `task.chunks(calls, size)` returns."""

    __slots__ = ()

    def __init__(self, task: Task[..., Any], calls: Iterable[Sequence[Any]], size: int) -> None:
        if size < 1:
            raise ConfigError(f"a chunk holds at least 1 call, not {size!r}")
        rest = iter(calls)
        super().__init__([starmap_of(task, chunk) for chunk in iter(lambda: list(islice(rest, size)), [])])

    def group(self) -> group:
        """The same as a plain group."""
        return group(self.tasks)


def _form(app: Penstock) -> Format:
    return app.pipeline.serializer(app.conf.task_serializer)


def starmap_in(app: Penstock) -> Callable[[str, list[list[Any]]], list[Any]]:
    """The function of `STARMAP` in this app."""

    def starmap(name: str, calls: list[list[Any]]) -> list[Any]:
        task = app.tasks.get(name)
        if task is None:
            raise UnknownTask(f"no task {name!r} is registered here: is its module imported by the app?")
        form, values = _form(app), []
        for call in calls:
            # Written and read again, so that the function gets what its annotations say.
            args, kwargs = task.arguments(form.encode((call, {})), form.name)
            values.append(task(*args, **kwargs))
        return values

    return starmap
