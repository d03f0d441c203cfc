"""The results of the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Key
from penstock.engines.server.wire import Wire
from penstock.errors import PenstockError
from penstock.outcome import Outcome, Progress, Report
from penstock.protocol.requests import UnwatchRequest, WatchRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

CHUNK = 5_000
"""Ids of one call."""
FEW = 64
"""Results that are fetched together."""

log = logging.getLogger("penstock.engine")


class Listener:
    """One subscription: the public ids that it still waits for. Used on the loop's thread, but for `close`."""

    def __init__(self, backend: ServerBackend, keys: Sequence[Key], notify: Notify) -> None:
        self._backend = backend
        self.keys = keys
        self.ids: set[str] = set()
        self.notify = notify
        self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._backend.leave(self)


class ServerBackend:
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._listeners: dict[str, list[Listener]] = {}
        self._fetching: set[asyncio.Task[None]] = set()

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
        self._engine.thread.soon(lambda: self._enter(listener))
        return listener

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        for start in range(0, len(keys), CHUNK):
            await self._engine.link.call("forget", keys[start : start + CHUNK])

    async def note(self, key: Key, progress: Progress) -> None:
        await self._engine.link.call("note", key, progress)

    # Listening.

    def _enter(self, listener: Listener) -> None:
        if listener.closed:
            return
        for key in listener.keys:
            task_id = self._engine.broker.public_id(key)
            listener.ids.add(task_id)
            self._listeners.setdefault(task_id, []).append(listener)
        if (wire := self._engine.link.wire) is not None:
            _watch(wire, listener.keys)

    def watch_again(self, wire: Wire) -> None:
        """What was told meanwhile, nobody heard."""
        _watch(wire, list(self._listeners))

    def told(self, reports: Sequence[Report]) -> None:
        """What the broker pushed. Results that were too large to be are asked for."""
        small = [report for report in reports if report.outcome is not None]
        self._notify(small)
        if len(small) < len(reports):
            task = asyncio.get_running_loop().create_task(
                self._fetch([report.id for report in reports if report.outcome is None])
            )
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

    def _notify(self, reports: Sequence[Report]) -> None:
        told: dict[int, tuple[Listener, list[Report]]] = {}
        for report in reports:
            for listener in self._listeners.pop(report.id, ()):
                listener.ids.discard(report.id)
                told.setdefault(id(listener), (listener, []))[1].append(report)
        for listener, found in told.values():
            if not listener.closed:
                listener.notify(found)

    def leave(self, listener: Listener) -> None:
        if self._engine.is_open():
            self._engine.thread.soon(lambda: self._forget(listener))

    def _forget(self, listener: Listener) -> None:
        unheard: list[int | str] = []
        for task_id in listener.ids:
            waiting = self._listeners.get(task_id, [])
            if listener in waiting:
                waiting.remove(listener)
                if not waiting:
                    del self._listeners[task_id]
                    unheard.append(task_id)
        if unheard:
            rows = [number for one in unheard if (number := self._engine.ids.number(str(one))) is not None]
            self._engine.link.tell(UnwatchRequest([*unheard, *rows]))

    async def stop(self) -> None:
        for task in self._fetching:
            task.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)

    def forked(self) -> None:
        self._listeners.clear()
        self._fetching.clear()


def _watch(wire: Wire, keys: Sequence[Key]) -> None:
    for start in range(0, len(keys), CHUNK):
        wire.tell(WatchRequest(list(keys[start : start + CHUNK])))
