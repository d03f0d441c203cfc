"""What a broker tells Prometheus: of all its namespaces, and of itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.clock import SystemClock
from penstock.metrics.families import of_queues
from penstock.metrics.place import Place
from penstock.metrics.serving import MetricsServer
from penstock.metrics.text import Family, Sample
from penstock.pressure.overview import Outlook, overview

if TYPE_CHECKING:
    from penstock.server.broker import Broker


class BrokerMetrics:
    def __init__(self, broker: Broker, place: Place) -> None:
        """Listens from now on. Raises `ConfigError`."""
        self._broker = broker
        self._clock = SystemClock()
        self._server = MetricsServer(place, self._collect)
        self.url = self._server.url
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _collect(self) -> list[Family]:
        broker = self._broker
        queues: list[Outlook] = []
        for space in list(broker.spaces.values()):
            space.tell_refused()
            view = space.engine.run(overview(space.engine, space.engine.coordinator, self._clock, None))
            queues += [replace(one, space=space.name) for one in view.queues]
            await asyncio.sleep(0)  # clients come first
        return [*of_queues(queues), *self._own()]

    def _own(self) -> list[Family]:
        broker = self._broker
        blocked = sum(len(space.blocked) for space in broker.spaces.values())
        return [
            Family("penstock_broker_connections", "gauge", "Clients.", [Sample({}, len(broker.peers))]),
            Family(
                "penstock_broker_blocked_publishes", "gauge", "Publishes that wait for room.", [Sample({}, blocked)]
            ),
            Family(
                "penstock_broker_sign_ins_refused_total",
                "counter",
                "Sign-ins that were refused.",
                [Sample({}, broker.refused)],
            ),
        ]
