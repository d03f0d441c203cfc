"""Parts of running tasks: kept by the server, told by push."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.backend import check_parts
from penstock.engines.network.listening import Listener
from penstock.engines.redis.names import check_id
from penstock.engines.redis.pages import pack_part, read_part
from penstock.engines.redis.wire import Part as Argument
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Parts

if TYPE_CHECKING:
    from penstock.engines.redis.handle import RedisEngine

MOST_ASKED = 1_000
"""Tasks that one call names."""


class RedisStreams:
    """Its listeners are used on the loop's thread."""

    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self._listeners: dict[str, list[Listener]] = {}

    async def append(self, task_id: str, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        check_id(task_id)
        check_parts(values)
        args: list[Argument] = ["append", MOST_PARTS, MOST_PART_BYTES, task_id, run, str(mark), len(values)]
        args += [pack_part(run, value, content_type) for value, content_type in values]
        return bool(await self._engine.link.again("results", args))

    async def parts(self, task_id: str, offset: int, limit: int) -> Parts:
        """Raises `StoreError` for parts that are damaged."""
        args: list[Argument] = ["parts", task_id, offset, max(0, min(limit, MOST_PARTS))]
        first, end, ended, start, found = await self._engine.link.again("results", args)
        return Parts(first, end, [read_part(task_id, start + n, one) for n, one in enumerate(found)], bool(ended))

    def subscribe(self, task_id: str, notify: Callable[[], None]) -> Listener:
        listener: Listener = Listener(notify, lambda: self.leave(task_id, listener))
        self._engine.reopen()
        self._engine.thread.spawn(self._enter(task_id, listener))
        return listener

    async def _enter(self, task_id: str, listener: Listener) -> None:
        if listener.closed:
            return
        self._listeners.setdefault(task_id, []).append(listener)
        await self._attend([task_id])

    async def _attend(self, keys: Sequence[str]) -> None:
        """What was added before the server knew who waits may have come after who waits began to."""
        for start in range(0, len(keys), MOST_ASKED):
            ids = keys[start : start + MOST_ASKED]
            for task_id in await self._engine.link.again("results", ["attend", self._engine.client, len(ids), *ids]):
                self.told(task_id.decode())

    def ask_again(self) -> None:
        """After a new connection: what was pushed meanwhile is lost, and the server may be another."""
        if self._listeners:
            self._engine.thread.spawn(self._attend(list(self._listeners)))

    def told(self, task_id: str) -> None:
        for listener in list(self._listeners.get(task_id, ())):
            listener.tell()

    def leave(self, task_id: str, listener: Listener) -> None:
        if self._engine.is_open():
            self._engine.thread.soon(lambda: self._forget(task_id, listener))

    def _forget(self, task_id: str, listener: Listener) -> None:
        waiting = self._listeners.get(task_id, [])
        if listener in waiting:
            waiting.remove(listener)
            if not waiting:
                del self._listeners[task_id]
                if self._engine.is_open():
                    self._engine.thread.spawn(self._leave(task_id))

    async def _leave(self, key: str) -> None:
        await self._engine.link.again("results", ["unattend", self._engine.client, 1, key])
        if key in self._listeners:  # somebody came, and the server may have heard of that first
            await self._attend([key])

    def forked(self) -> None:
        self._listeners.clear()
