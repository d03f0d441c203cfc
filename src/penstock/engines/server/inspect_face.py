"""Looking into the queues of a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import DeadLetter, Member, Peeked
from penstock.queue import Queue, QueueInfo

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine


class ServerInspect:
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        await self._engine.link.call("declare", list(queues), namespace)

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        found: list[QueueInfo] = await self._engine.link.call("queues", namespace)
        return found

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        found: list[Peeked] = await self._engine.link.call("peek", queue, limit, namespace)
        return found

    async def purge(self, queue: str, namespace: str = "") -> int:
        count: int = await self._engine.link.call("purge", queue, namespace)
        return count

    async def pause(self, queue: str, namespace: str = "") -> bool:
        changed: bool = await self._engine.link.call("pause", queue, namespace)
        return changed

    async def resume(self, queue: str, namespace: str = "") -> bool:
        changed: bool = await self._engine.link.call("resume", queue, namespace)
        return changed

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = await self._engine.link.call("dead_letters", queue, limit, namespace)
        return found

    async def retry_dead(self, ids: Sequence[str]) -> int:
        count: int = await self._engine.link.call("retry_dead", list(ids))
        return count

    async def drop_dead(self, ids: Sequence[str]) -> int:
        count: int = await self._engine.link.call("drop_dead", list(ids))
        return count

    async def members(self) -> Sequence[Member]:
        found: list[Member] = await self._engine.link.call("members")
        return found
