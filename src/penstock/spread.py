"""A large operation, fed slowly: a call for each of many items, spread over hours, and resumed where it was killed.

Whoever feeds publishes what is due, and nothing ahead of it, and notes in the broker's shared state how far it came.
So a run that ends early, by whatever, is run again under the same name: it goes on from that note. What was published
after the last note has the same ids again, and is recognised by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Required, TypedDict

import msgspec
from msgspec import Struct

from penstock import apart
from penstock.batch import open_batch
from penstock.broker import Full
from penstock.canvas.calls import Signature
from penstock.canvas.linked import refuse_links
from penstock.errors import ConfigError, PublishError, Unsupported
from penstock.limit import UNITS, rate_of
from penstock.limiting import Limiter, admit
from penstock.on_full import only_single
from penstock.queue import check_name
from penstock.spelling import hint
from penstock.task import Task

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.engine import Engine
    from penstock.message import Message

STEP = 0.25
"""Seconds between two publishes, each of what became due meanwhile."""
LONGEST_PAUSE = 1.0
"""Seconds until a queue that is full is tried again."""
MAX_NAME = 150
"""Bytes of a name: ids are made of it."""


class Spread(Struct, frozen=True):
    """How a run of a spread ended: what it published itself, after what earlier ones of its name had."""

    name: str
    published: int
    before: int

    def task_id(self, number: int) -> str:
        """The id of the task of an item; the first is 0."""
        return task_id(self.name, number)


class Cursor(Struct, frozen=True):
    """How far a spread came: the number of the next item. `ended`: there are no more."""

    next: int = 0
    ended: bool = False


_read = msgspec.json.Decoder(Cursor).decode
_write = msgspec.json.Encoder().encode


class SpreadSettings(TypedDict, total=False):
    """How a spread is fed: give `over`, the time for all of it in seconds or as text ("90s", "30m", "2h", "1d"), or
    `rate`, in calls a second or as text ("10/s", "100/m"). `total` is how many items there are, where they do not say
    it. A `name` is that of one operation, for ever."""

    name: Required[str]
    over: str | float | timedelta | None
    rate: str | float | None
    total: int | None


def plan(
    app: Penstock,
    call: Task[..., Any] | Signature[Any],
    items: Iterable[Any],
    how: SpreadSettings,
    clock: Callable[[], float] = time.monotonic,
) -> apart.Plan[Spread]:
    """Publish a call for each of the items. Raises what a call raises, but for `QueueFull`, which is waited for;
    `ConfigError`; `PublishError` when another process feeds the same name; `Unsupported`."""
    known = SpreadSettings.__annotations__.keys()
    for option in how:
        if option not in known:
            raise ConfigError(f"a spread has no option {option!r}{hint(option, known)}")
    name, pace = how.get("name", ""), pace_of(items, how.get("over"), how.get("rate"), how.get("total"))
    signature = _checked(app, call, name)
    keeper = _keeper(app)
    key = f"spread/{app.conf.namespace}/{name}"
    cursor, version = _stored(name, (yield keeper, keeper.coordinator.get(key)))
    if cursor.ended:
        return Spread(name, 0, cursor.next)
    before, messages = cursor.next, _messages(app, signature, islice(items, cursor.next, None), name, cursor.next)
    # The first goes at once, and no more: whoever is started again and again would feed a burst each time.
    burst, most = max(1.0, pace * STEP * 2), min(app.client.most, 1 + int(pace))
    limiter = Limiter(pace, burst, full=clock() + (burst - 1.0) / pace)
    while not cursor.ended:
        admission = admit(limiter, [1.0] * most, 0, clock())
        if admission.count:
            limiter, batch = admission.after, list(islice(messages, admission.count))
            yield from _publish(app, batch)
            cursor = Cursor(cursor.next + len(batch), len(batch) < admission.count)
            version = yield keeper, keeper.coordinator.put(key, _write(cursor), version)
            if version is None:
                raise PublishError(f"spread {name!r}: another process feeds it, too; each call is there once")
        if not cursor.ended and admission.count < most:
            yield apart.Pause(max(STEP, (admission.again or 0.0) - clock()))
    return Spread(name, cursor.next - before, before)


def pace_of(
    items: Iterable[Any], over: str | float | timedelta | None, rate: str | float | None, total: int | None
) -> float:
    """Calls a second. Raises `ConfigError`."""
    if (over is None) == (rate is None):
        raise ConfigError("give over, the time for all of it, such as '2h', or rate, such as '10/s'")
    if rate is not None:
        pace = rate_of(rate)
        if pace is None:
            raise ConfigError(f"rate must be more than 0, not {rate!r}")
        return pace
    if total is None:
        if not isinstance(items, Sized):
            raise ConfigError(f"{type(items).__name__} does not say how many there are: give total, or rate")
        total = len(items)
    return max(1, total) / _seconds(over)


def task_id(name: str, number: int) -> str:
    return f"{name}-{number}"


def _checked(app: Penstock, call: Task[..., Any] | Signature[Any], name: str) -> Signature[Any]:
    check_name("spread", name)
    if len(name.encode()) > MAX_NAME:
        raise ConfigError(f"spread name {name[:40]!r}… is over {MAX_NAME} bytes")
    signature = Signature[Any](call.name, app=app) if isinstance(call, Task) else call
    if not isinstance(signature, Signature):
        raise TypeError(f"a spread calls a task or a signature, such as task.s(…), not {type(call).__name__}")
    refuse_links(signature)
    only_single("a spread", signature.options)
    if signature.options.get("task_id") is not None:
        raise ConfigError(f"{signature!r}: ids of a spread are made of its name; leave out task_id")
    if app.conf.task_always_eager:
        raise ConfigError("task_always_eager runs single calls: a spread needs a broker; in tests, memory://")
    if open_batch(app.client) is not None:
        raise ConfigError("a spread cannot wait in a batch: feed it outside of app.batch()")
    return signature


def _keeper(app: Penstock) -> Engine:
    """Where the cursor is stored."""
    keeper = apart.coordinating(app.engine, app.results)
    if keeper is None:
        raise Unsupported(
            f"the {app.engine.broker.features.engine} engine cannot store how far a spread came, and no other keeps "
            "the results: set result_backend, for example to redis://localhost:6379/1"
        )
    return keeper


def _stored(name: str, found: tuple[bytes, int] | None) -> tuple[Cursor, int]:
    if found is None:
        return Cursor(), 0
    try:
        return _read(found[0]), found[1]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"spread {name!r}: what is stored of it cannot be read ({error}): take another name"
        ) from error


def _messages(app: Penstock, call: Signature[Any], items: Iterable[Any], name: str, first: int) -> Iterator[Message]:
    """One for each item: a tuple is arguments, anything else is the one argument; they go before those of the call."""
    task = app.tasks.get(call.task)
    for number, item in enumerate(items, first):
        args = (*item, *call.args) if isinstance(item, tuple) else (item, *call.args)
        options = {**call.options, "task_id": task_id(name, number)}
        if task is None:
            yield app.client.prepare_unknown(call.task, args, call.kwargs, options)
        else:
            yield app.client.prepare(task, args, call.kwargs, options)


def _publish(app: Penstock, messages: Sequence[Message]) -> apart.Plan[None]:
    """All of them, however long the queue is full. A repeat is as good as a new one."""
    client, size = app.client, len(messages)
    while messages:
        chunk, later = messages[:size], messages[size:]
        answers = yield client.engine, client.publish(chunk)
        full = [answer for answer in answers if isinstance(answer, Full)]
        for message, answer in zip(chunk, answers, strict=True):
            if not isinstance(answer, Full):
                client.key_of(message, answer)
        left = [message for message, answer in zip(chunk, answers, strict=True) if isinstance(answer, Full)]
        messages = [*left, *later]
        if full and len(left) == len(chunk):
            room = full[0].limit - full[0].depth if full[0].unit == "tasks" else size // 2
            if room <= 0 or size == 1:
                yield apart.Pause(min(LONGEST_PAUSE, max(0.01, full[0].retry_after)))
            size = max(1, min(room, size - 1))


def _seconds(over: str | float | timedelta | None) -> float:
    seconds: object = over
    if isinstance(over, timedelta):
        seconds = over.total_seconds()
    elif isinstance(over, str):
        count, unit = over.strip()[:-1], over.strip()[-1:]
        try:
            seconds = float(count) * UNITS[unit]
        except (ValueError, KeyError):
            seconds = over
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
        raise ConfigError(
            f"over must be seconds, a timedelta, or text such as '90s', '30m', '2h' or '1d', not {over!r}"
        )
    return float(seconds)
