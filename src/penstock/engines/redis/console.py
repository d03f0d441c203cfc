"""What consoles see of, and do to, the queues of a Redis engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import DeadLetter, Member, Peeked
from penstock.engines.redis.asking import fresh_value
from penstock.engines.redis.greeting import info, is_replica
from penstock.engines.redis.link import PATIENCE
from penstock.engines.redis.names import escaped, queue_key, queue_names
from penstock.engines.redis.pages import read, reason_of
from penstock.engines.redis.wire import Part
from penstock.queue import MAX_BYTES, MAX_LENGTH, Queue, QueueInfo
from penstock.retry import afresh
from penstock.shedding import SHEDDING

if TYPE_CHECKING:
    from penstock.engines.redis.handle import RedisEngine

CHUNK = 1_000
"""Tasks that one call drops: the server does nothing else meanwhile."""


class RedisInspect:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine

    async def declare(self, queues: Sequence[Queue], namespace: str = "", patience: float = PATIENCE) -> None:
        args: list[str | int] = ["declare", len(queues)]
        for queue in queues:
            shedding = queue.overflow if queue.overflow in SHEDDING else ""
            args += (queue_key(namespace, queue.name), queue.max_length, queue.max_bytes, shedding)
        await self._engine.link.again("inspect", args, patience)

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        args: list[Part] = ["queues", int(namespace is None), escaped(namespace or "")]
        found = await self._engine.link.view("inspect", args)
        return sorted((_queue(*one) for one in found), key=lambda one: (one.namespace, one.name))

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        found = await self._engine.link.view("inspect", ["peek", queue_key(namespace, queue), max(0, limit)])
        return [
            Peeked(task_id.decode(), state.decode(), read(value)[1], float(due) if due else None)
            for state, task_id, value, due in found
        ]

    async def purge(self, queue: str, namespace: str = "") -> int:
        dropped = 0
        while count := await self._engine.link.again("inspect", ["purge", queue_key(namespace, queue), CHUNK]):
            dropped += count
        return dropped

    async def pause(self, queue: str, namespace: str = "") -> bool:
        return bool(await self._engine.link.again("inspect", ["pause", queue_key(namespace, queue)]))

    async def resume(self, queue: str, namespace: str = "") -> bool:
        return bool(await self._engine.link.again("inspect", ["resume", queue_key(namespace, queue)]))

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        names = [queue] if queue is not None else [one.name for one in await self.queues(namespace)]
        keys = [queue_key(namespace, name) for name in names]
        found = await self._engine.link.view("inspect", ["dead_letters", len(keys), *keys, max(0, limit)])
        return [_letter(*one) for one in found]

    async def retry_dead(self, ids: Sequence[str]) -> int:
        moved = 0
        for start in range(0, len(ids), CHUNK):
            moved += await self._revive(list(dict.fromkeys(ids[start : start + CHUNK])))
        return moved

    async def _revive(self, ids: Sequence[str]) -> int:
        values = await self._engine.link.again("inspect", ["dead_messages", len(ids), *ids])
        pairs: list[str | bytes] = []
        for task_id, value in zip(ids, values, strict=True):
            if value is not None:
                message = read(value)[1]
                fresh = b"" if message is None else fresh_value(afresh(message))
                pairs += (task_id, fresh)
        return int(await self._engine.link.again("inspect", ["retry_dead", len(pairs) // 2, *pairs])) if pairs else 0

    async def drop_dead(self, ids: Sequence[str]) -> int:
        return int(await self._engine.link.again("inspect", ["drop_dead", len(ids), *ids]))

    async def members(self) -> Sequence[Member]:
        """The leader and its replicas; none when it has none."""
        found = info(await self._engine.link.command("INFO", "replication"))
        written = int(found.get("master_repl_offset", "0"))
        replicas = [_replica(line, written) for name, line in found.items() if is_replica(name)]
        host, port = self._engine.link.place
        if not replicas and self._engine.settings.master is None and len(self._engine.settings.address.hosts) == 1:
            return []
        return [Member(f"{host}:{port}", "leader", in_sync=True, lag=0.0, lag_bytes=0), *replicas]


def _replica(line: str, written: int) -> Member:
    """One line of INFO replication: ip=…,port=…,state=online,offset=…,lag=…"""
    parts = dict(part.partition("=")[::2] for part in line.split(","))
    alive = parts.get("state") == "online"
    behind = max(0, written - int(parts.get("offset", "0")))
    lag = float(parts["lag"]) if parts.get("lag", "").isdigit() else None
    return Member(
        f"{parts.get('ip', '?')}:{parts.get('port', '?')}",
        "replica",
        alive,
        in_sync=alive and behind == 0,
        lag=lag,
        lag_bytes=behind,
        note="" if alive else parts.get("state", ""),
    )


def _queue(key: bytes, age: bytes, found: Sequence[bytes]) -> QueueInfo:
    namespace, name = queue_names(key)
    length, size, ready, leased, delayed, held, dead, enqueued, settled, shed, paused = (int(one or 0) for one in found)
    return QueueInfo(
        name,
        namespace,
        length or MAX_LENGTH,
        size or MAX_BYTES,
        depth=ready + leased + delayed,
        bytes=held,
        ready=ready,
        leased=leased,
        delayed=delayed,
        dead=dead,
        oldest_age=float(age) if age else None,
        enqueued=enqueued,
        settled=settled,
        paused=bool(paused),
        shed=shed,
    )


def _letter(task_id: bytes, value: bytes, about: Sequence[bytes]) -> DeadLetter:
    lane, message, data = read(value)
    died, attempts, reason, *mark = about
    if message is not None:
        message.attempts = int(attempts)
    raw, queue = data if message is None else b"", queue_names(lane)[1]
    return DeadLetter(
        task_id.decode(), queue, reason_of(mark[0], queue) if mark else reason.decode(), float(died), message, raw
    )
