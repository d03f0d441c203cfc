"""The embedded engine's coordinator: workers, revocations, leadership and shared state, all in the same file."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.store import Store

LISTED = 60.0
"""Seconds since its last sign after which a worker without a live file is no longer listed."""


class SqliteCoordinator:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        return self._store.change(lambda wake: [self._revoke(key, terminate, wake) for key in keys], heavy=False)

    def _revoke(self, key: Key, terminate: bool, wake: Wake) -> Revoked:
        row = key if isinstance(key, int) else self._store.row_in_write(key)
        if row is None:
            return self._store.revoker.remember(str(key))
        done = self._store.revoker.revoke(row, terminate)
        wake.results |= done is Revoked.REMOVED
        return done

    async def join(self, worker: WorkerInfo) -> None:
        self._store.join(worker.id, worker.slots)
        row = (
            worker.id,
            worker.name,
            worker.host,
            worker.pid,
            worker.slots,
            msgspec.json.encode(worker.queues).decode(),
            worker.pool,
            worker.started,
            self._store.now(),
        )
        self._store.change(
            lambda wake: self._db.execute("INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row),
            durable=False,
        )

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        now = self._store.now()

        def work(wake: Wake) -> None:
            for worker in workers:
                self._db.execute("UPDATE lease SET until = max(until, ?) WHERE worker = ?", (now + lease, worker))
                self._db.execute("UPDATE worker SET seen = ? WHERE id = ?", (now, worker))

        self._store.change(work, durable=False, heavy=False)

    async def leave(self, worker: str) -> None:
        self._store.change(lambda wake: self._store.reaper.leave(worker, wake))
        self._store.registry.remove(worker)

    async def bury(self, worker: str) -> int:
        count = self._store.change(lambda wake: self._store.reaper.bury(worker, wake))
        self._store.registry.remove(worker)
        return count

    async def reap(self) -> int:
        """Looks before it locks: an idle system's reaper writes nothing."""
        reaper = self._store.reaper
        self._db.check_in_place()
        self._store.spare.restore()
        count = 0
        for worker in reaper.dead_workers():
            count += await self.bury(worker)
        if self._db.read(reaper.has_expired):
            count += self._store.change(reaper.expired)
        while self._db.read(reaper.needs_clearing):
            if not self._store.change(lambda wake: reaper.clear(), durable=False):
                break
        await self._drop_stale_parts()
        return count

    async def _drop_stale_parts(self) -> None:
        streams = self._store.streams
        if streams.may_be_stale():
            while stale := self._db.read(streams.stale):
                self._store.change(lambda wake, rows=stale: self._store.drop_parts(rows), durable=False)  # type: ignore[misc]  # mypy: lambda default

    async def workers(self) -> Sequence[WorkerInfo]:
        def work() -> list[WorkerInfo]:
            rows = self._db.query("SELECT * FROM worker ORDER BY started").fetchall()
            return [_worker_info(*row) for row in rows]

        registry, oldest = self._store.registry, self._store.now() - LISTED
        files = set(registry.files())
        return [
            worker
            for worker in self._db.read(work)
            if not registry.is_dead(worker.id) and (worker.id in files or worker.seen > oldest)
        ]

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        now = self._store.now()

        def work(wake: Wake) -> int | None:
            row = self._db.execute("SELECT holder, token, until FROM leader WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] != holder and row[2] > now:
                return None
            token: int = 1 if row is None else row[1] + (row[0] != holder or row[2] <= now)
            self._db.execute("INSERT OR REPLACE INTO leader VALUES (?, ?, ?, ?)", (name, holder, token, now + ttl))
            return token

        return self._store.change(work, heavy=False)

    async def resign(self, name: str, holder: str) -> None:
        self._store.change(
            lambda wake: self._db.execute("UPDATE leader SET until = 0 WHERE name = ? AND holder = ?", (name, holder)),
            heavy=False,
        )

    async def get(self, key: str) -> tuple[bytes, int] | None:
        def work() -> tuple[bytes, int] | None:
            row = self._db.query("SELECT value, version FROM state WHERE key = ?", (key,)).fetchone()
            return (row[0], row[1]) if row else None

        return self._db.read(work)

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        return self._store.change(lambda wake: self._store.ending.put(key, value, if_version), heavy=False)


def _worker_info(
    worker: str, name: str, host: str, pid: int, slots: int, queues: str, pool: str, started: float, seen: float
) -> WorkerInfo:
    names = tuple(msgspec.json.decode(queues, type=list[str]))
    return WorkerInfo(worker, name, host, pid, slots, names, pool, started, seen)
