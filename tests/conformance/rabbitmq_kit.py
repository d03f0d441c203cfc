"""The suite on a real RabbitMQ, with results in a memory engine."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import Key
from penstock.engine import Engine
from penstock.engines.memory import open_engine as open_memory
from penstock.engines.rabbitmq import open_engine
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.outcome import Report
from penstock.testing.conformance import Kit
from penstock.testing.conformance.worker import Worker

UNIT = 0.35
PATIENCE = 0.3
ARRIVING = 0.05


class RabbitKit(Kit):
    def __init__(self, url: str, *, blocking: bool) -> None:
        self._url = url
        super().__init__(
            open_engine(url), blocking=blocking, unit=UNIT, patience=PATIENCE, results=open_memory("memory://")
        )

    def open_second(self) -> Engine:
        return open_engine(self._url)

    async def expire(self, worker: Worker) -> None:
        await self.kill(worker)

    async def kill(self, worker: Worker) -> None:
        # The connection goes, as a broken network or the end of the process would end it.
        assert isinstance(worker.engine, RabbitEngine)
        await self.call(cut(worker.engine), worker.engine)


class ReplyKit(RabbitKit):
    """Results in the process that asked: a worker's answer takes a moment to come."""

    def __init__(self, url: str, *, blocking: bool) -> None:
        self._url = url
        Kit.__init__(self, open_engine(url.replace("amqp", "rpc", 1)), blocking=blocking, unit=UNIT, patience=PATIENCE)

    async def fetch(self, *keys: Key) -> Sequence[Report]:
        await self.pass_time(ARRIVING)
        return await super().fetch(*keys)


async def cut(engine: RabbitEngine) -> None:
    engine.core.consuming.cut()
