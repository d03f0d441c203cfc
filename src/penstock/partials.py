"""What running tasks publish: `publish_partial`, and what generator tasks yield.

A part is encoded where it is published, and sent by a thread of the process. While one append is under way, the next
parts gather and go together: alone, a part waits for nobody; in quick succession, many share a call. A run is settled
after all of its parts are stored. If they cannot be, the run fails with that error, as if its function had raised it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from penstock import apart
from penstock.backend import check_parts
from penstock.blocking import running_loop
from penstock.broker import Key
from penstock.codec import compression_of
from penstock.errors import BrokerError, BrokerUnavailable, OutcomeUnknown, Unsupported
from penstock.outcome import Part

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.codec import Format, Returned
    from penstock.options import TaskOptions
    from penstock.request import Request

AHEAD_PARTS, AHEAD_BYTES = 1_000, 1 << 20
"""What of one run may wait to be sent; who publishes more waits. One append carries no more than that, either."""
PATIENCE = 30.0
"""Seconds for which an append is tried again while the engine cannot be reached."""
STALLED = 60.0
"""Seconds that a task waits at most, for room or for its parts to be stored."""
IDLE = 10.0
"""Seconds without anything to send after which the thread ends."""

log = logging.getLogger("penstock.task")


class Sink(Protocol):
    """Where the parts of one run go."""

    def put(self, value: bytes, content_type: str) -> None: ...
    async def aput(self, value: bytes, content_type: str) -> None: ...
    def finish(self) -> None:
        """All of them are stored when this returns."""
        ...

    async def afinish(self) -> None: ...
    def abandon(self) -> None:
        """The same after the run has failed: what cannot be stored is logged."""
        ...

    async def aabandon(self) -> None: ...


class Dropped:
    """The parts of a run whose result nobody wants to be kept."""

    def put(self, value: bytes, content_type: str) -> None: ...
    async def aput(self, value: bytes, content_type: str) -> None: ...
    def finish(self) -> None: ...
    async def afinish(self) -> None: ...
    def abandon(self) -> None: ...
    async def aabandon(self) -> None: ...


class Collected(Dropped):
    """The parts of a call that runs here (`apply`), for all of its runs."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.run = 0

    def put(self, value: bytes, content_type: str) -> None:
        self.parts.append(Part(len(self.parts), self.run, value, content_type))

    async def aput(self, value: bytes, content_type: str) -> None:
        self.put(value, content_type)


class Outgoing:
    """The parts of one run that are not stored yet. Everything here is guarded by the outbox's lock.

    A time limit may raise its error anywhere in `put`. What it leaves behind, the next call sets right (`Outbox.send`).
    """

    def __init__(self, outbox: Outbox, name: str, key: Key, run: int) -> None:
        """`key` is the task's key where results are kept, `run` the number of the run."""
        self._outbox, self._name = outbox, name
        self.key, self.run = key, run
        self.waiting: deque[tuple[bytes, str]] = deque()
        self.bytes = 0
        self.queued = self.under_way = False
        """It is in the row of those that have something to send; some of it is being sent."""
        self.error: BaseException | None = None
        self.lost = False
        """Nobody takes them any more: the task has ended elsewhere, or runs again."""
        self.waiters: list[Callable[[], None]] = []
        """To be called at the next change."""

    def put(self, value: bytes, content_type: str) -> None:
        check_parts([(value, content_type)])
        with self._outbox.lock:
            if self._is_full() and running_loop() is not None:
                raise BrokerUnavailable(
                    f"{self._name}: {len(self.waiting):,} parts wait to be stored, and this would block the loop: "
                    "await self.apublish_partial(…)"
                )
            if self._is_full():
                self._block(lambda: not self._is_full())
            self._add(value, content_type)

    async def aput(self, value: bytes, content_type: str) -> None:
        check_parts([(value, content_type)])
        if self._is_full():
            await self._suspend(lambda: not self._is_full())
        with self._outbox.lock:
            self._add(value, content_type)

    def finish(self) -> None:
        with self._outbox.lock:
            self._block(self._is_empty)
            self._raise()

    async def afinish(self) -> None:
        await self._suspend(self._is_empty)
        self._raise()

    def abandon(self) -> None:
        with self._quietly():
            self.finish()

    async def aabandon(self) -> None:
        with self._quietly():
            await self.afinish()

    def take(self) -> list[tuple[bytes, str]]:
        """The next parts to be sent together."""
        taken: list[tuple[bytes, str]] = []
        size = 0
        while (
            self.waiting and len(taken) < AHEAD_PARTS and (not taken or size + len(self.waiting[0][0]) <= AHEAD_BYTES)
        ):
            taken.append(self.waiting.popleft())
            size += len(taken[-1][0])
        self.bytes = self.bytes - size if self.waiting else 0
        return taken

    def over(self, error: BaseException | None) -> None:
        """Nothing more is sent."""
        self.lost, self.error = error is None, error
        self.waiting.clear()
        self.bytes = 0

    def _add(self, value: bytes, content_type: str) -> None:
        self._raise()
        if not self.lost:
            self.bytes += len(value)
            self.waiting.append((value, content_type))
            self._outbox.send(self)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _is_full(self) -> bool:
        return len(self.waiting) >= AHEAD_PARTS or (self.bytes >= AHEAD_BYTES and bool(self.waiting))

    def _is_empty(self) -> bool:
        return not self.waiting and not self.under_way

    def _block(self, until: Callable[[], bool]) -> None:
        self._outbox.send(self)
        if not self._outbox.changed.wait_for(until, STALLED):
            raise self._stalled()

    async def _suspend(self, until: Callable[[], bool]) -> None:
        import asyncio  # who awaits has loaded it

        loop = asyncio.get_running_loop()
        deadline = loop.time() + STALLED
        while True:
            with self._outbox.lock:
                self._outbox.send(self)
                if until():
                    return
                changed = loop.create_future()
                self.waiters.append(lambda changed=changed: _wake(loop, changed))  # type: ignore[misc]  # mypy: lambda default
            await asyncio.wait([changed], timeout=deadline - loop.time())
            if not changed.done() and loop.time() >= deadline:
                raise self._stalled()

    def _stalled(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self._name}: parts could not be stored for {STALLED:g} s")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except BrokerError as error:
            log.warning("%s: the last parts of a run that failed are not stored: %s", self._name, error)


class Outbox:
    """Sends the parts of all tasks of this process, on a thread that lives while there are some."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._begin()
        begin = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (method := begin()) is not None and method())

    def _begin(self) -> None:
        """Also in a forked child, which has none of the parent's threads."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._work = threading.Condition(self.lock)
        self._ready: deque[Outgoing] = deque()
        self._thread: threading.Thread | None = None

    def open(self, task: Publishes, request: Request) -> Outgoing:
        """Where the parts of this run go. Raises `Unsupported` where they cannot be kept."""
        app = self._app
        check_streams(app)
        [stored] = apart.stored_keys(app.engine, app.results, [request.key])
        return Outgoing(self, f"task {task.name}[{request.id}]", stored, request.run)

    def send(self, one: Outgoing) -> None:
        """See that it is in the row, if it has something to send. Under the lock."""
        if one.waiting and not one.queued and not one.under_way:
            self._ready.append(one)
            one.queued = True
        if self._ready and self._thread is None:
            thread = threading.Thread(target=self._run, name="penstock-parts", daemon=True)
            thread.start()
            self._thread = thread
        self._work.notify_all()  # one that was interrupted leaves a waiter that waits no more

    def _run(self) -> None:
        while True:
            with self.lock:
                if not self._work.wait_for(lambda: self._ready, IDLE):
                    self._thread = None
                    return
                one = self._ready.popleft()
                if one.under_way:
                    continue  # it was interrupted, and is here twice
                one.queued, one.under_way = False, True
                values = one.take()
            added, error = self._append(one, values)
            with self.lock:
                one.under_way = False
                if not added:
                    one.over(error)
                else:
                    self.send(one)
                waiters, one.waiters = one.waiters, []
                self.changed.notify_all()
            for wake in waiters:
                wake()

    def _append(self, one: Outgoing, values: Sequence[tuple[bytes, str]]) -> tuple[bool, BaseException | None]:
        """Whether they were added, or why not; `None`: nobody takes them."""
        if not values:
            return True, None
        mark, pause = int.from_bytes(os.urandom(8), "big") >> 1, 0.1
        deadline = time.monotonic() + PATIENCE
        results = self._app.results
        while True:
            try:
                return results.run(results.backend.append(one.key, one.run, mark, values)), None
            except (BrokerUnavailable, OutcomeUnknown) as error:
                if time.monotonic() + pause > deadline:
                    return False, error
                time.sleep(pause)
                pause = min(2.0, pause * 2)
            except BaseException as error:
                return False, error


class Publishes:
    """What a task can publish while it runs."""

    if TYPE_CHECKING:
        app: Penstock
        name: str
        options: TaskOptions
        result_format: Format

        @property
        def request(self) -> Request: ...
        @property
        def parts(self) -> Returned: ...

    def publish_partial(self, value: Any) -> None:
        """Publish a part: callers see it at once, in `AsyncResult.stream` and `partial`, while this run goes on. It is
        sent in the background, and stored before the run ends; nothing is published of a call without a result.

        Raises `EncodeError`, `MessageTooLarge` (4 MiB), `Unsupported` where results are kept without parts, and
        `BrokerError` when an earlier part could not be stored: catch it, or let the run fail."""
        request = self.request
        if not request.called_directly:
            sink_of(self, request).put(*encoded(self, request, value))

    async def apublish_partial(self, value: Any) -> None:
        """`publish_partial` in a coroutine: it waits, without blocking the loop, while too many parts wait to be sent,
        where the other raises."""
        request = self.request
        if not request.called_directly:
            await sink_of(self, request).aput(*encoded(self, request, value))


def check_streams(app: Penstock) -> None:
    """Raise `Unsupported` where nobody keeps what running tasks publish."""
    features = app.results.broker.features
    if not features.streams:
        raise Unsupported(
            f"{features.engine} keeps no parts of running tasks: set result_backend to where they shall be kept, for "
            "example redis://localhost:6379/1"
        )


def sink_of(task: Publishes, request: Request) -> Sink:
    """Where the parts of this run go: made with its first one."""
    sink: Sink | None = request.sink
    if sink is None:
        app = task.app
        kept = app.keeps_results and not app.client.ignores_result(cast(Any, task), request.message)
        sink = request.sink = app.client.outbox.open(task, request) if kept else Dropped()
    return sink


def encoded(task: Publishes, request: Request, value: Any) -> tuple[bytes, str]:
    """A part as it leaves this process, and its content type. Raises `EncodeError`."""
    app, form = task.app, task.result_format
    data = task.parts.encode(value, form)
    if request.is_eager:
        return data, form.name
    compression = compression_of(app.conf.result_compression)
    return app.pipeline.part_out(request.id, request.run, data, form.name, compression)


def _wake(loop: Any, changed: Any) -> None:
    try:
        loop.call_soon_threadsafe(lambda: changed.done() or changed.set_result(None))
    except RuntimeError:
        log.debug("the loop was closed that waited for parts to be stored")
