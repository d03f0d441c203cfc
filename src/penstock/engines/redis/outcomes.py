"""The result backend of the Redis engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Key
from penstock.engines.network.listening import Listener
from penstock.engines.redis.names import check_id
from penstock.engines.redis.pages import letters, look, pack_outcome, pack_progress, report_of
from penstock.engines.redis.streams import RedisStreams
from penstock.errors import StoreError
from penstock.outcome import Outcome, Parts, Progress, Report

if TYPE_CHECKING:
    from penstock.engines.redis.handle import RedisEngine

CHUNK = 1_000
"""Ids that one call asks for."""


class Waiter(Listener):
    """Somebody who waits for outcomes."""

    def __init__(self, keys: Sequence[str], notify: Notify, leave: Callable[[], None]) -> None:
        super().__init__(notify, leave)
        self.keys = set(keys)
        """What it still waits for."""


class RedisBackend:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self._listeners: dict[str, list[Waiter]] = {}
        self.streams = RedisStreams(engine)

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        if not outcomes:
            return []
        args: list[str | bytes | int | float] = ["store", len(outcomes)]
        for key, outcome in outcomes:
            check_id(str(key))
            args += (str(key), pack_outcome(outcome, outcome.task or None, None))
        return [bool(first) for first in await self._engine.link.again("results", args)]

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        reports: list[Report] = []
        for start in range(0, len(keys), CHUNK):
            ids = [str(key) for key in keys[start : start + CHUNK]]
            found = await self._engine.link.view("results", ["fetch", len(ids), *ids])
            reports += [look(task_id, one) for task_id, one in zip(ids, found, strict=True)]
        return await self._newest(reports) if self._engine.settings.read_replica else reports

    async def _newest(self, reports: list[Report]) -> Sequence[Report]:
        """A replica may be asked for what has ended, which does not change. For the rest, the leader is."""
        going_on = [number for number, report in enumerate(reports) if not report.state.terminal]
        for start in range(0, len(going_on), CHUNK):
            numbers = going_on[start : start + CHUNK]
            ids = [reports[number].id for number in numbers]
            found = await self._engine.link.again("results", ["fetch", len(ids), *ids])
            for number, one in zip(numbers, found, strict=True):
                reports[number] = look(reports[number].id, one)
        return reports

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        listener: Waiter = Waiter([str(key) for key in keys], notify, lambda: self.leave(listener))
        self._engine.reopen()
        self._engine.thread.spawn(self._enter(listener))
        return listener

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return self._engine.broker.mint()

    async def forget(self, keys: Sequence[Key]) -> None:
        await self._engine.link.again("results", ["forget", len(keys), *(str(key) for key in keys)])

    async def note(self, key: Key, progress: Progress) -> None:
        await self._engine.link.again("results", ["note", str(key), pack_progress(progress)])

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        return await self.streams.append(str(key), run, mark, values)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        return await self.streams.parts(str(key), offset, limit)

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        return self.streams.subscribe(str(key), notify)

    # Listening.

    async def _enter(self, listener: Waiter) -> None:
        if listener.closed:
            return
        for key in listener.keys:
            self._listeners.setdefault(key, []).append(listener)
        await self._ask(list(listener.keys))

    async def _ask(self, keys: Sequence[str]) -> None:
        """Register what is waited for; what is there already is told at once. If the server cannot be reached, it is
        asked again when it can."""
        for start in range(0, len(keys), CHUNK):
            ids = keys[start : start + CHUNK]
            found = await self._engine.link.again("results", ["listen", self._engine.client, len(ids), *ids])
            self._tell([(found[i].decode(), found[i + 1]) for i in range(0, len(found), 2)])

    def ask_again(self) -> None:
        """After a new connection: what was pushed meanwhile is lost, and the server may be another."""
        if self._listeners:
            self._engine.thread.spawn(self._ask(list(self._listeners)))
        self.streams.ask_again()

    def told(self, data: bytes) -> None:
        self._tell(list(letters(data)))

    def _tell(self, found: Sequence[tuple[str, bytes]]) -> None:
        told: dict[int, tuple[Waiter, list[Report]]] = {}
        for task_id, record in found:
            waiting = self._listeners.pop(task_id, None)
            if not waiting:
                continue
            try:
                report = report_of(task_id, record)
            except StoreError:
                continue  # who waits asks for it in a while, and is told that it is damaged
            for listener in waiting:
                listener.keys.discard(task_id)
                told.setdefault(id(listener), (listener, []))[1].append(report)
        for listener, reports in told.values():
            listener.tell(reports)

    def leave(self, listener: Waiter) -> None:
        if listener.keys and self._engine.is_open():
            self._engine.thread.soon(lambda: self._forget(listener))

    def _forget(self, listener: Waiter) -> None:
        unheard = []
        for key in listener.keys:
            waiting = self._listeners.get(key, [])
            if listener in waiting:
                waiting.remove(listener)
                if not waiting:
                    del self._listeners[key]
                    unheard.append(key)
        for chunk in itertools.batched(unheard, CHUNK) if hasattr(itertools, "batched") else [unheard]:
            if chunk and self._engine.is_open():
                self._engine.thread.spawn(self._leave(chunk))

    async def _leave(self, keys: Sequence[str]) -> None:
        await self._engine.link.again("results", ["unlisten", self._engine.client, len(keys), *keys])
        if again := [key for key in keys if key in self._listeners]:  # the server may have heard of those first
            await self._ask(again)

    def forked(self) -> None:
        self._listeners.clear()
        self.streams.forked()
