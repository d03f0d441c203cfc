"""The contract of coordination: who lives, who leads, what was revoked, and small shared state."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from penstock.broker import Key


class WorkerInfo(Struct, frozen=True):
    """A worker process that may hold leases. `id` is 32 hex digits, random; `name` is for people; times are Unix
    time."""

    id: str
    name: str
    host: str
    pid: int
    slots: int
    queues: tuple[str, ...]
    pool: str
    started: float
    seen: float = 0.0


class Revoked(StrEnum):
    """What a revocation found."""

    REMOVED = "removed"
    """It was waiting, and is gone; its state is REVOKED."""
    RUNNING = "running"
    """A worker has it; the worker is told."""
    ENDED = "ended"
    """It had ended before."""
    REMEMBERED = "remembered"
    """Not seen yet; it will be refused should it come."""


class Shared(Protocol):
    """Leader leases and small shared state, on whichever server they are."""

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        """Hold (or keep) the lease `name` for `ttl` seconds; returns its fencing token, `None` when somebody else
        holds it. The token grows each time that the holder changes."""
        ...

    async def resign(self, name: str, holder: str) -> None: ...

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """A value of the small shared state and its version."""
        ...

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        """Set (or with `None` delete) a value; returns the new version, or `None` when `if_version` was not the
        present one."""
        ...


class Coordinator(Shared, Protocol):
    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        """End tasks for good: waiting ones at once, running ones by their worker (`terminate`: in the middle).
        Survives restarts. What it ends itself is REVOKED in the results of the same server; on another server they
        are stored by `penstock.apart.revoke` and, when a worker gives a revoked task back, by the committer."""
        ...

    async def join(self, worker: WorkerInfo) -> None:
        """Register this process as a worker. While it lives, its leases can be renewed; when it dies, they are taken
        back."""
        ...

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        """Renew all leases of these workers (ids) for `lease` seconds, and their registration: they are alive, though
        maybe busy."""
        ...

    async def leave(self, worker: str) -> None:
        """Sign off; what it still holds is ready again at once, and nothing is charged: it leaves of its own will,
        so that nothing it had started can have killed it."""
        ...

    async def bury(self, worker: str) -> int:
        """The worker process is dead (its parent saw it): take its leases back now, charging what it had started;
        returns how many tasks."""
        ...

    async def reap(self) -> int:
        """Take back leases that ran out, or whose worker died; expire results; promote what is due. Any process may
        call it, often."""
        ...

    async def workers(self) -> Sequence[WorkerInfo]: ...
