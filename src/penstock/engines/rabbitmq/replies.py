"""Results over RabbitMQ: each client process has one reply queue, and its name is in the ids of its tasks.

Results are transient: they go to the process that asked, once, and are kept there. Another process does not see them.
When that process loses its connection, its queue is gone with what was in it: what it waited for is reported as lost,
and a queue of another name takes the results of later tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from pika import spec

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Key
from penstock.engines.rabbitmq import wire
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.link import Link
from penstock.engines.rabbitmq.publisher import Publisher
from penstock.engines.rabbitmq.settings import Settings
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import BrokerError, BrokerUnavailable, PenstockError
from penstock.outcome import Outcome, Report, State

MOST = 100_000
"""Results kept in a client process."""
RESULT_TIMEOUT = 30.0
_ID = re.compile(r"(?P<token>[0-9a-f]{16})-")
_encode = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(list[tuple[str, Outcome]])
log = logging.getLogger("penstock.engine")


def reply_queue(token: str) -> str:
    return f"penstock.replies.{token}"


def token_of(id: str) -> str | None:
    """Whose task it is; ids that are derived from a task's begin with it."""
    found = _ID.match(id)
    return found["token"] if found else None


class Waiting:
    """A subscription: the keys that have not ended, and whom to tell."""

    def __init__(self, replies: Replies, keys: Sequence[str], notify: Notify, lost: Lost | None) -> None:
        self.keys = set(keys)
        self.notify, self.lost = notify, lost
        self._replies = replies

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        self._replies.leave(self)


class Replies:
    """The results that this process waits for. Thread-safe where callers' threads come in."""

    def __init__(self, settings: Settings, soon: Callable[[Callable[[], object]], None]) -> None:
        self._settings = settings
        self._soon = soon
        self.token = secrets.token_hex(8)
        """That of the queue which is there, or comes next."""
        self._past: set[str] = set()
        """Those of queues that were lost: nothing can come for their ids."""
        self._closing = False
        self._returning: asyncio.Task[None] | None = None
        self.undelivered = 0
        """Results whose asker was gone; they had nowhere to go."""
        self._numbers = itertools.count(1)
        self.wanted = settings.replies
        self._link: Link[Connection] = Link(settings, self._prepare)
        self._lock = threading.Lock()
        self._results: OrderedDict[str, tuple[float, Outcome]] = OrderedDict()
        self._bytes = 0
        self._waiting: dict[str, list[Waiting]] = {}
        self._strangers = False

    def next_id(self) -> str:
        return f"{self.token}-{next(self._numbers):x}"

    async def ensure(self, timeout: float) -> None:
        """The reply queue is there."""
        self.wanted = True
        await self._link.get(timeout)

    @property
    def ready(self) -> bool:
        return self._link.connection is not None

    async def _prepare(self, connection: Connection) -> Connection:
        channel = await connection.channel()
        queue = reply_queue(self.token)
        channel.deliver = self._on_reply
        declare = spec.Queue.Declare(0, queue, exclusive=True, auto_delete=True)
        await channel.call(declare, spec.Queue.DeclareOk)
        await channel.call(spec.Basic.Consume(0, queue, "replies", no_ack=True), spec.Basic.ConsumeOk)

        def gone(consumer: str) -> None:
            connection.abort(BrokerUnavailable(f"{connection.login.url}: the reply queue {queue!r} was deleted"))

        def ended(error: PenstockError) -> None:
            connection.abort(error)  # it serves nothing else
            self._on_lost(error)

        if channel.error is not None:
            raise channel.error
        channel.cancelled, channel.ended = gone, ended
        return connection

    # -- the worker's side

    async def send(self, publisher: Publisher, outcomes: Sequence[tuple[str, Outcome]]) -> list[bool]:
        """Send results to those who asked, one message for each asker. `False`: the id names nobody."""
        by_token: dict[str, list[tuple[str, Outcome]]] = {}
        sent = []
        for id, outcome in outcomes:
            token = token_of(id)
            sent.append(token is not None)
            if token is not None:
                by_token.setdefault(token, []).append((id, outcome))
            elif not self._strangers:
                self._strangers = True
                log.warning(
                    "task id %r names no reply queue, so that its result has nowhere to go: results over RabbitMQ need "
                    "ids that penstock gives; leave out task_id, or keep results elsewhere (result_backend)",
                    id,
                )
        for token, group in by_token.items():
            props = wire.properties(token, "replies", "msgpack", mode=wire.TRANSIENT)
            await publisher.send_plain(reply_queue(token), props, _encode(group), self._on_return, RESULT_TIMEOUT)
        return sent

    def _on_return(self, content: Content) -> None:
        try:
            count = len(_decoder.decode(content.body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            count = 1
        if not self.undelivered:
            log.warning("%d results had nowhere to go: the process that asked is gone (told once)", count)
        self.undelivered += count

    # -- the asker's side

    def _on_reply(self, content: Content) -> None:
        try:
            outcomes = _decoder.decode(content.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a reply could not be read: %s", error)
            return
        told: dict[Waiting, list[Report]] = {}
        with self._lock:
            for id, outcome in outcomes:
                if id in self._results:
                    continue  # the first one stays
                self._keep(id, outcome)
                for waiting in self._waiting.pop(id, ()):
                    waiting.keys.discard(id)
                    told.setdefault(waiting, []).append(_report(id, outcome))
        for waiting, reports in told.items():
            waiting.notify(reports)

    def _keep(self, id: str, outcome: Outcome) -> None:
        now = time.monotonic()
        results = self._results
        results[id] = (now, outcome)
        self._bytes += len(outcome.value)
        oldest = now - self._settings.result_expires
        while results and (
            len(results) > MOST
            or self._bytes > self._settings.result_max_bytes
            or next(iter(results.values()))[0] < oldest
        ):
            _, (_, dropped) = results.popitem(last=False)
            self._bytes -= len(dropped.value)

    def _on_lost(self, error: PenstockError) -> None:
        with self._lock:
            waiting = {one for several in self._waiting.values() for one in several}
            self._waiting.clear()
            self._past.add(self.token)
            self.token = secrets.token_hex(8)
        if not self._closing:
            self._returning = asyncio.get_running_loop().create_task(self._return())
        what = BrokerError(f"the connection with the reply queue was lost, and results that were on their way: {error}")
        for one in waiting:
            if one.lost is not None and one.keys:
                one.lost(what)

    async def _return(self) -> None:
        """The next queue is made at once, however long that takes: later results find it."""
        with contextlib.suppress(PenstockError):  # who publishes next tries again, and is told
            await self._link.get(float("inf"))

    def reports(self, ids: Sequence[str]) -> list[Report]:
        with self._lock:
            found = [self._results.get(id) for id in ids]
        return [
            Report(id, State.UNKNOWN) if one is None else _report(id, one[1])
            for id, one in zip(ids, found, strict=True)
        ]

    def subscribe(self, ids: Sequence[str], notify: Notify, lost: Lost | None) -> Subscription:
        waiting = Waiting(self, ids, notify, lost)
        ended = []
        foreign = None
        with self._lock:
            for id in ids:
                known = self._results.get(id)
                if known is not None:
                    waiting.keys.discard(id)
                    ended.append(_report(id, known[1]))
                elif token_of(id) != self.token:
                    foreign = id
                else:
                    self._waiting.setdefault(id, []).append(waiting)
        if ended:
            self._soon(lambda: notify(ended))
        if foreign is not None and lost is not None:
            error = BrokerUnavailable(f"task {foreign!r}: {self._why_never(foreign)}")
            self._soon(lambda: lost(error))
        return waiting

    def _why_never(self, id: str) -> str:
        token = token_of(id)
        if token is None:
            return (
                "its id names no reply queue, so that its result goes nowhere: results over RabbitMQ need ids that "
                "penstock gives; leave out task_id, or keep results elsewhere (result_backend)"
            )
        if token in self._past:
            return "the connection with its reply queue was lost after it was sent, and its result with it"
        where = "a result over RabbitMQ goes to the process that sent the task, and this is another"
        return f"{where}; ask there, or keep results elsewhere"

    def leave(self, waiting: Waiting) -> None:
        with self._lock:
            for id in waiting.keys:
                others = self._waiting.get(id)
                if others is not None and waiting in others:
                    others.remove(waiting)
                    if not others:
                        del self._waiting[id]
            waiting.keys.clear()

    def forget(self, ids: Sequence[str]) -> None:
        with self._lock:
            for id in ids:
                dropped = self._results.pop(id, None)
                if dropped is not None:
                    self._bytes -= len(dropped[1].value)

    def cut(self) -> None:
        self._link.cut()

    async def close(self) -> None:
        self._closing = True
        if self._returning is not None:
            self._returning.cancel()
        await self._link.close()


def ids_of(keys: Sequence[Key]) -> list[str]:
    return [str(key) for key in keys]


def _report(id: str, outcome: Outcome) -> Report:
    return Report(id, outcome.state, outcome, outcome.task or None, retries=outcome.retries)
