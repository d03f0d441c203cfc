"""Calls that wait in queues, as tests compare them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from msgspec import Struct

from penstock.broker import Peeked
from penstock.codec import fate_in, spread
from penstock.options import unix_time
from penstock.spelling import hint
from penstock.worker.parts import INNER

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.message import Message
    from penstock.task import Task

SHOWN = 20
"""Most calls that a failed assertion shows."""


class Wanted(TypedDict, total=False):
    """What `assert_enqueued` compares besides the arguments. Times in seconds, `countdown` from now."""

    queue: str
    priority: int
    partition: str
    countdown: float | None
    eta: datetime | float | None
    expires: datetime | float | None
    task_id: str
    headers: Mapping[str, str]


class Enqueued(Struct, frozen=True, kw_only=True):
    """A call that waits. `args` and `kwargs` are what its function will be given; `eta` and `expires` are Unix times,
    `countdown` is seconds from now until it is due, `None` when it is. `state` is "ready", "delayed" or "leased"."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: str
    task_id: str
    queue: str
    priority: int
    partition: str
    countdown: float | None
    eta: float | None
    expires: float | None
    retries: int
    headers: dict[str, str]
    arguments: dict[str, Any]
    """All parameters by name, defaults included; of a task that is not registered, the positions as `#0`, `#1`…"""

    def __str__(self) -> str:
        return written(self.task, self.arguments, {"queue": self.queue})


def read(app: Penstock, peeked: Peeked, message: Message) -> Enqueued:
    """Raises `DecodeError`."""
    task = app.tasks.get(message.task)
    body = _body(app, message)
    args, kwargs = ((), {}) if body is None else _arguments(app, task, body, message.content_type)
    now = app.clock.time()
    return Enqueued(
        task=message.task,
        args=args,
        kwargs=kwargs,
        state=peeked.state,
        task_id=peeked.id,
        queue=message.queue,
        priority=message.priority,
        partition=message.partition,
        countdown=None if peeked.due is None else peeked.due - now,
        eta=peeked.due,
        expires=message.expires,
        retries=message.retries,
        headers=dict(message.headers or {}),
        arguments={} if body is None else _by_name(task, args, kwargs),
    )


def _body(app: Penstock, message: Message) -> bytes | None:
    """What holds the arguments; `None` for a part of a canvas that runs no function."""
    place, trust = message.options.place if message.options is not None else None, app.pipeline.trust
    if place is None:
        return message.body
    values = message.body
    if trust is not None and message.signed is not None and message.signed.join:
        values = trust.gathered(message, message.signed)
    lacks = place.head is not None and (not values or fate_in(values, message.content_type) is not None)
    if lacks or place.fate is not None or place.bridge or message.task in INNER:
        return None
    return place.body(values if place.head is None else spread(values, message.content_type))


def _arguments(
    app: Penstock, task: Task[..., Any] | None, body: bytes, content_type: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if task is not None:
        return task.arguments(body, content_type)
    form, data = app.pipeline.reader.open(body, content_type)
    args, kwargs = form.decoder(tuple[list[Any], dict[str, Any]]).decode(data)
    return tuple(args), kwargs


class Expectation:
    """What a test wants to be there: a task, maybe its arguments, maybe some options."""

    def __init__(
        self,
        task: Task[..., Any],
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        """Without `args` and `kwargs` any arguments fit. Raises `TypeError` for arguments that the task could not be
        called with, and for an unknown option."""
        for name in options:
            if name not in Wanted.__annotations__:
                raise TypeError(f"nothing enqueued has {name!r}{hint(name, Wanted.__annotations__)}")
        self.task = task.name
        self._arguments: dict[str, Any] | None = None
        if args is not None or kwargs is not None:
            # Through the codec, as those it is compared with: a set has become a list on both sides.
            body = task.codec.encode(tuple(args or ()), kwargs or {}, task.format)
            self._arguments = _by_name(task, *task.arguments(body, task.format.name))
        self._options = {
            name: unix_time(name, value) if name in ("eta", "expires") and value is not None else value
            for name, value in options.items()
        }

    def __str__(self) -> str:
        return written(self.task, self._arguments, self._options)

    def differences(self, call: Enqueued) -> list[str]:
        """How `call` differs, a line for each; none when it is what was wanted."""
        found = []
        if self._arguments is not None:
            found += _differences(self._arguments, call.arguments)
        return found + _differences(self._options, {name: getattr(call, name) for name in self._options})


def report(wanted: Expectation, count: int | None, found: Sequence[Enqueued], calls: Sequence[Enqueued]) -> str:
    """Why an assertion failed: what was wanted, and how each call that waits differs from it."""
    much = "" if count is None else f"{count} times "
    lines = [f"{_calls(len(found))} of this kind", f"  wanted {much}{wanted}"]
    near = [call for call in calls if call.task == wanted.task]
    for call in near[:SHOWN]:
        lines.append(f"  waits  {call}")
        lines += [f"           {line}" for line in wanted.differences(call)]
    others = [call for call in calls if call.task != wanted.task]
    lines += [f"  other  {call}" for call in others[: max(0, SHOWN - len(near))]]
    if len(calls) > SHOWN:
        lines.append(f"  and {len(calls) - SHOWN} more")
    return "\n".join(lines if calls else [*lines, "  nothing waits"])


def _calls(count: int) -> str:
    return {0: "no call waits", 1: "1 call waits"}.get(count, f"{count} calls wait")


def written(task: str, arguments: Mapping[str, Any] | None, options: Mapping[str, Any]) -> str:
    """A call as people write it."""
    inside = "…" if arguments is None else ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{task}({inside})" + "".join(f"  {name}={value!r}" for name, value in options.items())


def _by_name(task: Task[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if task is not None:
        return task.codec.by_name(tuple(args), kwargs)
    return {**{f"#{index}": value for index, value in enumerate(args)}, **kwargs}


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: wanted {wanted.get(name, '(none)')!r}, is {found.get(name, '(none)')!r}"
        for name in dict.fromkeys((*wanted, *found))
        if name not in wanted or name not in found or not _same(wanted[name], found[name])
    ]


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(wanted, found, rel_tol=1e-12, abs_tol=1e-6)
    return bool(wanted == found)
