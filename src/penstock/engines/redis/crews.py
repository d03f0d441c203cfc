"""The coordinator of the Redis engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.delivery import Receipt
from penstock.engines.redis.names import check_id, escaped
from penstock.engines.redis.wire import Part
from penstock.errors import OutcomeUnknown

if TYPE_CHECKING:
    from penstock.engines.redis.handle import RedisEngine

ROUNDS = 100
"""Batches of leases that ran out, taken back by one call."""
CHUNK = 1_000
TIMEOUT = 30.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(WorkerInfo).decode


class RedisCoordinator:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        found: list[Revoked] = []
        for start in range(0, len(keys), CHUNK):
            ids = [str(key) for key in keys[start : start + CHUNK]]
            for task_id in ids:
                check_id(task_id)
            answers = await self._engine.link.again("shared", ["revoke", int(terminate), len(ids), *ids])
            found += [Revoked(answer.decode()) for answer in answers]
        return found

    async def join(self, worker: WorkerInfo) -> None:
        self._engine.starts.join(worker.id, worker.slots)
        await self._engine.link.again("workers", ["join", escaped(worker.id), _encode(worker)])

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        await self._engine.link.again("workers", ["renew", lease, len(workers), *map(escaped, workers)])

    async def leave(self, worker: str) -> None:
        await self._engine.link.again("workers", ["sign_off", escaped(worker), 0])
        self._engine.starts.remove(worker)

    async def bury(self, worker: str) -> int:
        started = _noted(self._engine.starts.started(worker))
        answer = await self._engine.link.again("workers", ["sign_off", escaped(worker), len(started), *started])
        self._engine.starts.remove(worker)
        return int(answer)

    async def reap(self) -> int:
        moved, expired = await self._engine.link.again("workers", ["tidy"])
        for _ in range(ROUNDS):
            if not expired:
                break
            moved += await self._take_back(expired)
            expired = await self._engine.link.again("workers", ["expired"])
        for worker in self._engine.starts.dead():
            moved += await self.bury(worker)
        return int(moved)

    async def _take_back(self, expired: Sequence[tuple[bytes, bytes]]) -> int:
        tokens = [token for token, _ in expired]
        started: list[str] = []
        for worker in {worker.decode() for _, worker in expired}:
            started += _noted(self._engine.starts.started(worker))
        args: list[Part] = ["take_back", len(tokens), *tokens, len(started), *started]
        return int(await self._engine.link.again("workers", args))

    async def workers(self) -> Sequence[WorkerInfo]:
        found = await self._engine.link.again("workers", ["list"])
        return [worker for info in found if info and (worker := _read(info)) is not None]

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        token = await self._engine.link.again("shared", ["acquire", escaped(name), holder, ttl])
        return int(token) if token else None

    async def resign(self, name: str, holder: str) -> None:
        await self._engine.link.again("shared", ["resign", escaped(name), holder])

    async def get(self, key: str) -> tuple[bytes, int] | None:
        found = await self._engine.link.again("shared", ["get", key])
        return (found[1], int(found[0])) if found else None

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        args: list[Part] = ["put", key, int(value is None), value or b"", "" if if_version is None else if_version]
        version = await self._engine.link.once("shared", args, TIMEOUT)
        wanted = self._engine.settings.wait
        # Also for who comes second: he must not rely on what a failover takes back.
        if wanted and await self._engine.link.wait() < wanted:
            raise OutcomeUnknown(f"{self._engine.url}: it is not known whether enough replicas have {key!r}")
        return int(version) if version else None


def _read(info: bytes) -> WorkerInfo | None:
    """`None` for what another release, or a stranger, wrote."""
    try:
        return _decode(info)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _noted(receipts: set[Receipt]) -> list[str]:
    return [f"{receipt[0]} {receipt[-1]}" for receipt in receipts]
