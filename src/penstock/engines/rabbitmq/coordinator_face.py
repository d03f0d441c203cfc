"""The engine as a `Coordinator`: who works, and what the dead had started. The rest RabbitMQ cannot keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.engines.rabbitmq.core import CONNECTING
from penstock.engines.rabbitmq.publisher import alarmed
from penstock.errors import BrokerUnavailable, Unsupported

if TYPE_CHECKING:
    from penstock.engines.rabbitmq.engine import RabbitEngine

ROLL_CALL = 0.25
"""Seconds that workers have to answer."""


class RabbitCoordinator:
    def __init__(self, engine: RabbitEngine) -> None:
        self._engine = engine

    async def join(self, worker: WorkerInfo) -> None:
        core = self._engine.core
        core.starts.join(worker.id, worker.slots)
        core.worker = worker
        await core.consuming.get(CONNECTING)  # where it hears who asks for workers

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        """A lease is held as long as its connection lives, and no longer."""

    async def leave(self, worker: str) -> None:
        core = self._engine.core
        core.starts.remove(worker)
        if core.worker is not None and core.worker.id == worker:
            core.worker = None
            if core.consumers is not None:
                await core.consumers.release_all()

    async def bury(self, worker: str) -> int:
        """Charge what it had started; returns how many. The server itself took back what it held, when its connection
        ended."""
        return self._engine.core.charges.bury(worker)

    async def reap(self) -> int:
        """Bury the dead workers of this machine; returns how many tasks were charged."""
        core = self._engine.core
        return sum(core.charges.bury(worker) for worker in core.starts.dead())

    async def workers(self) -> Sequence[WorkerInfo]:
        """Those who answer within a quarter of a second; one that holds the interpreter's lock may not. Raises
        `BrokerUnavailable` while an alarm of the server keeps everybody from asking and answering."""
        core = self._engine.core
        if core.settings.passive:
            return [core.worker] if core.worker is not None else []
        await core.consuming.get(CONNECTING)
        answered = await core.roll_call.ask(core.tell, ROLL_CALL)
        connection = core.post.link.connection
        if not answered and connection is not None and connection.alarm is not None:
            raise BrokerUnavailable(alarmed(self._engine.url, connection.alarm))  # nobody could be asked
        now = core.settings.clock.time()
        return [replace(worker, seen=now) for worker in answered]  # they live: they have just said so

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        self._refuse("remembers no revocations")

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        self._refuse("leads no elections")

    async def resign(self, name: str, holder: str) -> None:
        self._refuse("leads no elections")

    async def get(self, key: str) -> tuple[bytes, int] | None:
        self._refuse("keeps no shared state")

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        self._refuse("keeps no shared state")

    def _refuse(self, what: str) -> NoReturn:
        raise Unsupported(f"{self._engine.url}: RabbitMQ {what}: keep results on another server (result_backend)")
