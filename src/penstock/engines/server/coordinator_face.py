"""The coordinator of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.engines.server.link import Link
from penstock.protocol import calls
from penstock.protocol.requests import CallRequest, StartedNote

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

CHUNK = 5_000
TELL = 0.1
"""Seconds between two looks at what the workers of this process run: what ends sooner, nobody has to know of."""


class ServerCoordinator:
    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._joined: dict[str, tuple[WorkerInfo, Link]] = {}
        """With the link whose connection the broker takes for its life."""
        self._telling = False

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        found: list[Revoked] = []
        for start in range(0, len(keys), CHUNK):
            found += await self._engine.link.call("revoke", keys[start : start + CHUNK], terminate)
        return found

    async def join(self, worker: WorkerInfo) -> None:
        self._engine.starts.join(worker.id, worker.slots)
        link = self._engine.link
        await link.call("join", worker)
        self._joined[worker.id] = worker, link
        if not self._telling:
            self._telling = True
            self._engine.thread.spawn(self._tell_starts())

    def joins(self, link: Link) -> list[CallRequest]:
        """What is said before anything else on a new connection: the broker, or another one, may have forgotten."""
        return [
            CallRequest(link.number(), "join", calls.raw((worker,)))
            for worker, its in self._joined.values()
            if its is link
        ]

    async def _tell_starts(self) -> None:
        """Let the broker see what runs: for those who ask, and should this machine be lost."""
        told: dict[str, set[tuple[int, int]]] = {}
        while self._telling:
            await asyncio.sleep(TELL)
            for worker in list(self._joined):
                started = {(one[0], one[1]) for one in self._engine.starts.started(worker)}
                if started != told.get(worker, set()):
                    told[worker] = started
                    self._engine.keeper.tell(StartedNote(worker, list(started)))

    async def stop_telling(self) -> None:
        self._telling = False

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        await self._engine.link.call("renew", list(workers), lease)

    async def leave(self, worker: str) -> None:
        self._joined.pop(worker, None)
        await self._engine.link.call("leave", worker)
        self._engine.starts.remove(worker)

    async def bury(self, worker: str) -> int:
        started = [(one[0], one[1]) for one in self._engine.starts.started(worker)]
        self._joined.pop(worker, None)
        count: int = await self._engine.link.call("bury", worker, started)
        self._engine.starts.remove(worker)
        return count

    async def reap(self) -> int:
        """The broker does it by itself; what it cannot know is what died on this machine."""
        count: int = await self._engine.link.call("reap")
        for worker in self._engine.starts.dead():
            count += await self.bury(worker)
        return count

    async def workers(self) -> Sequence[WorkerInfo]:
        found: list[WorkerInfo] = await self._engine.link.call("workers")
        return found

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        token: int | None = await self._engine.link.call("acquire", name, holder, ttl)
        return token

    async def resign(self, name: str, holder: str) -> None:
        await self._engine.link.call("resign", name, holder)

    async def get(self, key: str) -> tuple[bytes, int] | None:
        found: tuple[bytes, int] | None = await self._engine.link.call("get", key)
        return found

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        version: int | None = await self._engine.link.call_once("put", key, value, if_version)
        return version

    def forked(self) -> None:
        self._joined.clear()
        self._telling = False
