"""What a broker tells of itself: queues, clients, memory; as plain values for JSON."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import penstock
from penstock.coordinator import WorkerInfo
from penstock.queue import QueueInfo
from penstock.server.sampling import Rates
from penstock.server.session import ClientSession
from penstock.server.space import Space

if TYPE_CHECKING:
    from penstock.server.broker import Broker

COUNTS = "SELECT queue, enqueued, settled - shed FROM lane WHERE id < 0"
MOST_CLIENTS = 1_000
"""Clients that a status lists, those that do most first."""


class Sight:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._queues, self._clients = Rates(), Rates()

    def sample(self, now: float) -> None:
        """About once a second."""
        queues: dict[Any, tuple[int, ...]] = {}
        for space in self._broker.spaces.values():
            db = space.store.db
            rows = db.read(lambda db=db: db.query(COUNTS).fetchall())  # type: ignore[misc]  # mypy: lambda default
            for queue, enqueued, worked_off in rows:
                queues[space.name, queue] = (enqueued, worked_off)
        self._queues.take(now, queues)
        self._clients.take(
            now, {one: (one.published, one.delivered, one.settled) for one in self._broker.sessions.values()}
        )

    def status(self) -> dict[str, Any]:
        broker = self._broker
        return {
            "version": penstock.__version__,
            "pid": os.getpid(),
            "started": broker.started,
            "uptime": time.time() - broker.started,
            "data": str(broker.settings.data),
            "durability": broker.settings.durability,
            "connections": len(broker.peers),
            "max_connections": broker.max_connections,
            "sign_ins_refused": broker.refused,
            "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "memory": self._memory(),
            "settings": broker.hot(),
            "namespaces": [self._space(space) for space in broker.spaces.values()],
            "clients": self._listed_clients(),
        }

    def _memory(self) -> dict[str, Any]:
        """Bytes: resident, and what is known to hold some of it."""
        spaces, peers = self._broker.spaces.values(), self._broker.peers
        pages = Path("/proc/self/statm")
        resident = int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else None
        return {
            "resident": resident,
            "unread_by_clients": sum(peer.unread for peer in peers),
            "leases": sum(space.store.leases.size() for space in spaces),
            "watched_results": sum(session.watched for session in self._broker.sessions.values()),
            "parked_steps": sum(len(space.turns.parked) for space in spaces),
            "blocked_publishes": sum(len(space.blocked) for space in spaces),
        }

    def _space(self, space: Space) -> dict[str, Any]:
        path = Path(space.store.db.path)
        queues = space.engine.run(space.queues(None))
        workers = space.engine.run(space.engine.coordinator.workers())
        return {
            "namespace": space.name,
            "file": str(path),
            "bytes": sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists()),
            "workers": len(space.crew.files()),
            "queues": [self._queue(space, info, workers) for info in queues],
        }

    def _queue(self, space: Space, info: QueueInfo, workers: Sequence[WorkerInfo]) -> dict[str, Any]:
        number = space.store.catalog.known_queue(info.namespace, info.name)
        rates = self._queues.of((space.name, number))
        told = {name: getattr(info, name) for name in info.__struct_fields__}
        return told | {
            "rate_in": None if rates is None else rates[0],
            "rate_out": None if rates is None else rates[1],
            "consumers": sum(info.name in worker.queues for worker in workers),
            "waiting": sum(
                info.name in entry.work.demand.queues
                for entry in space.turns.parked
                if entry.work.demand is not None and entry.work.demand.namespace == info.namespace
            ),
            "overflow": space.overflow(info.namespace, info.name),
        }

    def _listed_clients(self) -> list[dict[str, Any]]:
        sessions = sorted(self._broker.sessions.values(), key=lambda one: -(one.published + one.settled))
        return [self._client(session) for session in sessions[:MOST_CLIENTS]]

    def _client(self, session: ClientSession) -> dict[str, Any]:
        rates = self._clients.of(session)
        held = session.space.store.leases.held_by(session.workers)
        return {
            "user": session.identity.user,
            "address": session.peer.address,
            "client": session.client,
            "namespace": session.space.name,
            "connected": session.peer.age,
            "workers": len(session.workers),
            "credit": session.credit,
            "unsettled": held,
            "published": session.published,
            "delivered": session.delivered,
            "settled": session.settled,
            "publish_rate": None if rates is None else rates[0],
            "deliver_rate": None if rates is None else rates[1],
            "settle_rate": None if rates is None else rates[2],
            "received_bytes": session.peer.received,
            "sent_bytes": session.peer.sent,
            "unread_bytes": session.peer.unread,
        }
