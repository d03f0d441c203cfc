"""The results of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.backend import Lost, Notify, Subscription, check_parts
from penstock.blocking import running_loop
from penstock.broker import Key
from penstock.engines.server.faults import Broken
from penstock.engines.server.part_listening import PartListening
from penstock.engines.server.wire import LoopWire
from penstock.errors import PenstockError
from penstock.outcome import Outcome, Parts, Progress, Report
from penstock.protocol.frames import frame
from penstock.protocol.requests import UnwatchRequest, WatchRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

CHUNK = 5_000
"""Ids of one call."""
FEW = 64
"""Results that are fetched together."""
LOST_PAUSE = 0.05
"""Seconds until one who waits looks for another connection."""

log = logging.getLogger("penstock.engine")


class Listener:
    """One subscription: the public ids that it still waits for. Used on the loop's thread, but for `close`."""

    def __init__(self, backend: ServerBackend, keys: Sequence[Key], notify: Notify) -> None:
        self._backend = backend
        self.keys = keys
        self.ids: set[str] = set()
        self.notify = notify
        self.closed = False
        self.watched: object = None
        """The connection on which a blocking caller reads by itself what it waits for."""

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return self._backend.wait(self, told, seconds)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._backend.leave(self)


class ServerBackend:
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._listeners: dict[str, list[Listener]] = {}
        self._entering: deque[Listener] = deque()
        self._fetching: set[asyncio.Task[None]] = set()
        self.part_listening = PartListening(engine)
        self._lock = threading.Lock()
        """Guards `_listeners`: the loop reads pushes, and so do callers that block."""

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        first: list[bool] = []
        for start in range(0, len(outcomes), CHUNK):
            first += await self._engine.link.call("store", outcomes[start : start + CHUNK])
        return first

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        reports: list[Report] = []
        while len(reports) < len(keys):  # what is too much for one answer comes with the next
            reports += await self._engine.link.call("fetch", keys[len(reports) : len(reports) + CHUNK])
        return reports

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        listener = Listener(self, list(keys), notify)
        self._engine.reopen()
        if running_loop() is None:
            self._entering.append(listener)  # most likely it waits on this thread, in a moment
        else:
            self._engine.thread.soon(lambda: self._enter(listener))
        return listener

    def enter_late(self) -> None:
        """On the loop, now and then: those who do not wait by themselves."""
        while self._entering:
            self._enter(self._entering.popleft())

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        for start in range(0, len(keys), CHUNK):
            await self._engine.link.call("forget", keys[start : start + CHUNK])

    async def note(self, key: Key, progress: Progress) -> None:
        await self._engine.link.call("note", key, progress)

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        check_parts(values)
        added: bool = await self._engine.link.call("append", key, run, mark, values)
        return added

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        found: Parts = await self._engine.link.call("parts", key, offset, limit)
        return found

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        return self.part_listening.subscribe(key, notify)

    # Listening.

    def wait(self, listener: Listener, told: threading.Event, seconds: float) -> bool:
        """A caller that blocks reads by itself, as long as there is a connection for it."""
        wire = self._engine.line.wire
        if wire is None or not self._engine.is_open():
            return told.wait(seconds)
        if listener.watched is not wire:
            listener.watched = wire
            self._register(listener)
            with contextlib.suppress(Broken, TimeoutError):
                for request in watches(listener.keys):
                    wire.send(frame(request), time.monotonic() + seconds)
        return wire.listen(told, seconds) or (bool(wire.lost) and told.wait(min(seconds, LOST_PAUSE)))

    def _register(self, listener: Listener) -> None:
        with self._lock:
            for key in listener.keys:
                task_id = self._engine.broker.public_id(key)
                if task_id not in listener.ids:
                    listener.ids.add(task_id)
                    self._listeners.setdefault(task_id, []).append(listener)

    def _enter(self, listener: Listener) -> None:
        if listener.closed or listener.watched is not None:
            return
        self._register(listener)
        if (wire := self._engine.keeper.wire) is not None:
            for request in watches(listener.keys):
                wire.tell(request)

    def watch_again(self, wire: LoopWire) -> None:
        """What was told meanwhile, nobody heard."""
        with self._lock:
            waited = list(self._listeners)
        for request in watches(waited):
            wire.tell(request)

    def told(self, reports: Sequence[Report]) -> None:
        """What the broker pushed. Results that were too large to be are asked for."""
        small = [report for report in reports if report.outcome is not None]
        self._notify(small)
        if len(small) < len(reports):
            ids = [report.id for report in reports if report.outcome is None]
            self._engine.thread.soon(lambda: self._begin_fetch(ids))

    def _begin_fetch(self, ids: Sequence[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._fetch(ids))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _fetch(self, ids: Sequence[str]) -> None:
        """A few at a time: each is handed on before the next is asked for."""
        for start in range(0, len(ids), FEW):
            asked = list(ids[start : start + FEW])
            while asked:
                try:
                    found: list[Report] = await self._engine.link.call("fetch", asked)
                except PenstockError as error:  # the next connection tells again what nobody has heard
                    log.warning("%s: results could not be fetched: %s", self._engine.url, error)
                    return
                del asked[: len(found)]
                self._notify(found)
                self._engine.line.interrupt()  # who waits there reads for himself, and looks when he is rung

    def _notify(self, reports: Sequence[Report]) -> None:
        told: dict[int, tuple[Listener, list[Report]]] = {}
        with self._lock:
            for report in reports:
                for listener in self._listeners.pop(report.id, ()):
                    listener.ids.discard(report.id)
                    told.setdefault(id(listener), (listener, []))[1].append(report)
        for listener, found in told.values():
            if not listener.closed:
                listener.notify(found)

    def leave(self, listener: Listener) -> None:
        unheard: list[int | str] = []
        with self._lock:
            for task_id in listener.ids:
                waiting = self._listeners.get(task_id, [])
                if listener in waiting:
                    waiting.remove(listener)
                    if not waiting:
                        del self._listeners[task_id]
                        unheard.append(task_id)
        if not unheard or not self._engine.is_open():
            return
        rows = [number for one in unheard if (number := self._engine.ids.number(str(one))) is not None]
        request = UnwatchRequest([*unheard, *rows])
        if listener.watched is not None:
            self._engine.line.tell(request)
        else:
            self._engine.thread.soon(lambda: self._engine.keeper.tell(request))

    async def stop(self) -> None:
        for task in self._fetching:
            task.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)

    def forked(self) -> None:
        self._listeners.clear()
        self._entering.clear()
        self._fetching.clear()
        self.part_listening.forked()
        self._lock = threading.Lock()  # another thread of the parent may have held it


def watches(keys: Sequence[Key]) -> list[WatchRequest]:
    return [WatchRequest(list(keys[start : start + CHUNK])) for start in range(0, len(keys), CHUNK)]
