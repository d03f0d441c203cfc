"""The coordinator of the memory engine."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.engines.memory import settling
from penstock.engines.memory.records import Hold, Lead, Task
from penstock.engines.memory.store import REMEMBERED, Store

WORKER_TTL = 60.0
"""Seconds that a worker is listed which joined and never renewed."""
JOIN_TTL = 24 * 3600.0
"""Seconds that a finished join is remembered, so that a repeat stays a repeat."""


class MemoryCoordinator:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        with self._store.lock:
            self._store.tidy()
            return [self._revoke(str(key), terminate) for key in keys]

    async def join(self, worker: WorkerInfo) -> None:
        with self._store.lock:
            now = self._store.now()
            self._store.workers[worker.id] = (replace(worker, seen=now), now + WORKER_TTL)

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        with self._store.lock:
            self._store.tidy()
            now = self._store.now()
            for worker in workers:
                known = self._store.workers.get(worker)
                if known is not None:
                    self._store.workers[worker] = (replace(known[0], seen=now), now + lease)
            for task in self._store.leased.values():
                if task.worker in workers:
                    task.until = now + lease

    async def leave(self, worker: str) -> None:
        with self._store.lock:
            for task in self._sign_off(worker):
                self._store.give_back(task, charge=False)

    async def bury(self, worker: str) -> int:
        with self._store.lock:
            mine = self._sign_off(worker)
            for task in mine:
                self._store.give_back(task, charge=self._store.started(task))
            return len(mine)

    async def reap(self) -> int:
        with self._store.lock:
            store, now = self._store, self._store.now()
            moved = store.tidy()
            # A worker that fell silent is no longer listed; its leases run out in their own time.
            for worker in [one for one, (_, until) in store.workers.items() if until <= now]:
                del store.workers[worker]
            store.shelf.expire(store.tasks.__contains__)
            for name in [name for name, one in store.gatherings.items() if _is_over(one.closed, now)]:
                del store.gatherings[name]
            _drop_ended(store.uniques, now)
            _drop_ended(store.dedups, now)
            store.limits.forget_spent()
            return moved

    async def workers(self) -> Sequence[WorkerInfo]:
        with self._store.lock:
            now = self._store.now()
            return [info for info, until in self._store.workers.values() if now < until]

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        with self._store.lock:
            now = self._store.now()
            lead = self._store.leads.setdefault(name, Lead())
            if lead.until <= now:
                lead.token += 1
                lead.holder = holder
            elif lead.holder != holder:
                return None
            lead.until = now + ttl
            return lead.token

    async def resign(self, name: str, holder: str) -> None:
        with self._store.lock:
            lead = self._store.leads.get(name)
            if lead is not None and lead.holder == holder:
                lead.until = 0.0

    async def get(self, key: str) -> tuple[bytes, int] | None:
        with self._store.lock:
            return self._store.values.get(key)

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        with self._store.lock:
            return settling.put(self._store, key, value, if_version)

    def _revoke(self, task_id: str, terminate: bool) -> Revoked:
        store = self._store
        task = store.tasks.get(task_id)
        if task is None:
            if store.known(task_id) or store.shelf.get(task_id) is not None:
                return Revoked.ENDED
            store.revoked[task_id] = terminate
            while len(store.revoked) > REMEMBERED:
                store.revoked.popitem(last=False)
            return Revoked.REMEMBERED
        return store.revoke(task, terminate)

    def _sign_off(self, worker: str) -> list[Task]:
        """The worker is no longer listed; returns what it still holds."""
        self._store.workers.pop(worker, None)
        return [task for task in self._store.leased.values() if task.worker == worker]


def _is_over(closed: float | None, now: float) -> bool:
    return closed is not None and closed + JOIN_TTL <= now


def _drop_ended(keys: dict[tuple[str, str], Hold], now: float) -> None:
    for key in [key for key, hold in keys.items() if not hold.holds(now)]:
        del keys[key]
