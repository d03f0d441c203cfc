"""Many calls in few publishes: `delay_many`, and `with app.batch():`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from penstock import apart
from penstock.canvas.calls import Signature
from penstock.canvas.linked import refuse_links
from penstock.errors import ConfigError, MessageTooLarge, PenstockError, QueueFull, Unsupported
from penstock.on_full import RUN_INLINE, Backoff, OnFull, check_on_full, only_single

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.broker import Answer
    from penstock.client import Client
    from penstock.message import Message
    from penstock.result import AsyncResult
    from penstock.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class Batch:
    """Collects the calls made in its block (in this context) and publishes them at its end, all or none.

    An exception in the block publishes nothing. A result's `id` is there after the block; give `task_id=` to know it
    before. The end raises `MessageTooLarge`, with nothing sent, when there are more calls than the broker takes at
    once, `Unsupported` when it takes none at once, `QueueFull`, or `AlreadyQueued` (the other calls are published
    then).
    """

    def __init__(self, app: Penstock, connection: object | None = None, on_full: OnFull | None = None) -> None:
        """With a `connection` the calls are published inside the transaction that it is in. `on_full` may be a
        `Backoff`: all of them are tried again; `None`: as the settings say, if that is one. Raises `ConfigError`."""
        asked = "raise" if on_full is None else on_full
        check_on_full("on_full", asked)
        if asked == RUN_INLINE or (asked != "raise" and connection is not None):
            what = "inside a transaction" if connection is not None else "that are there all or none"
            raise ConfigError(f"on_full={asked!r} cannot be for calls {what}")
        default = app.conf.task_on_full if on_full is None and connection is None else asked
        self._on_full = default if isinstance(default, Backoff) else None
        self._app = app
        self._connection = connection
        self.client = app.client
        self.closed = True
        self.outer: Batch | None = None
        self._calls: list[tuple[Message, AsyncResult[Any]]] = []
        self._token: Token[Batch | None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, task: Task[P, R] | None, message: Message) -> AsyncResult[R]:
        result = self.client.result(task, message, message.id)
        self._calls.append((message, result))
        return result

    def __enter__(self) -> Batch:
        if self._token is not None:
            raise ConfigError("a batch is used once; call app.batch() again")
        self.outer, self.closed = _current.get(), False
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        messages = self._end(error)
        if messages and self._connection is not None:
            self._published(self.client.enlist(messages, self._connection))
        elif messages:
            self._published(apart.drive(self.client.admission.published(messages, self._on_full)))

    async def __aenter__(self) -> Batch:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        messages = self._end(error)
        if messages and self._connection is not None:
            self._published(await self.client.aenlist(messages, self._connection))
        elif messages:
            self._published(await apart.adrive(self.client.admission.published(messages, self._on_full)))

    def _end(self, error: BaseException | None) -> list[Message]:
        self.closed = True
        if self._token is not None:
            _current.reset(self._token)
        if error is not None or not self._calls:
            return []
        most = self.client.most
        if len(self._calls) > most:
            raise MessageTooLarge(
                f"{len(self._calls):,} calls in one batch; the broker takes {most:,} at once. Nothing was published: "
                "make several batches, or use delay_many, which is not all-or-none"
            )
        features = self._app.engine.broker.features
        if len(self._calls) > 1 and not features.whole_batches:
            raise Unsupported(
                f"{features.engine} cannot take several tasks all or none. Nothing was published: use delay_many, or "
                "call them one by one"
            )
        return [message for message, _ in self._calls]

    def _published(self, answers: Sequence[Answer]) -> None:
        refused: PenstockError | None = None
        for (message, result), answer in zip(self._calls, answers, strict=True):
            try:
                result.published_as(self.client.key_of(message, answer))
            except PenstockError as error:
                refused = refused or error
        if refused is not None:
            raise refused


_current: ContextVar[Batch | None] = ContextVar("penstock.batch", default=None)


def open_batch(client: Client) -> Batch | None:
    """The innermost batch of this app whose block is not over (a task started in the block may outlive it)."""
    batch = _current.get()
    while batch is not None and (batch.closed or batch.client is not client):
        batch = batch.outer
    return batch


class Many:
    """The calls of one `delay_many`, published in chunks."""

    def __init__(self, client: Client, task: Task[P, R], calls: Iterable[tuple[Any, ...] | Signature[Any]]) -> None:
        self._client = client
        self._task = task
        self._calls = iter(calls)
        self._read = 0
        self.results: list[AsyncResult[Any]] = []

    def chunks(self, most: int) -> Iterator[list[Message]]:
        """Messages to publish, at most `most` at a time; none of those that an open batch takes."""
        batch = open_batch(self._client)
        with self.counting():
            while calls := list(islice(self._calls, most)):
                messages = [self._message(call) for call in calls]
                if batch is None:
                    yield messages
                else:
                    self.results.extend(batch.add(self._task, message) for message in messages)

    def messages(self) -> Iterator[Message]:
        """Each of them, whatever batch is open."""
        return map(self._message, self._calls)

    def published(self, messages: Sequence[Message], answers: Sequence[Answer]) -> None:
        refused: PenstockError | None = None
        for message, answer in zip(messages, answers, strict=True):
            try:
                key = self._client.key_of(message, answer)
            except PenstockError as error:
                refused = refused or error
            else:
                self.results.append(self._client.result(self._task, message, key))
        if refused is not None:
            raise refused

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Errors say how many calls were published before them."""
        try:
            yield
        except QueueFull as full:
            raise full.counted(len(self.results)) from None
        except Exception as error:
            error.add_note(f"{len(self.results):,} tasks of this call were published before")
            raise

    def _message(self, call: tuple[Any, ...] | Signature[Any]) -> Message:
        self._read += 1
        if isinstance(call, tuple):
            return self._client.prepare(self._task, call, {})
        if not isinstance(call, Signature):
            raise TypeError(
                f"call {self._read} is {type(call).__name__}; give tuples of arguments, such as (x,), or signatures, "
                f"{self._task.name}.s(…)"
            )
        if call.task != self._task.name:
            raise ConfigError(
                f"call {self._read} is of task {call.task!r}; delay_many publishes {self._task.name!r} only"
            )
        refuse_links(call)
        only_single(f"call {self._read} of delay_many", call.options)
        return self._client.prepare(self._task, call.args, call.kwargs, call.options)
