"""An open engine of a broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.engines.network.engine import NetworkEngine
from penstock.engines.network.starts import PairStarts
from penstock.engines.server.backend_face import ServerBackend
from penstock.engines.server.broker_face import ServerBroker, features_before
from penstock.engines.server.coordinator_face import ServerCoordinator
from penstock.engines.server.inspect_face import ServerInspect
from penstock.engines.server.link import Link
from penstock.engines.server.settings import Settings
from penstock.engines.server.wire import Wire
from penstock.errors import ConfigError
from penstock.public_ids import PublicIds

log = logging.getLogger("penstock.engine")


class ServerEngine(NetworkEngine):
    """One namespace of one broker. Times (leases, delays, expiry) are the broker's."""

    link: Link

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.public)
        self.settings = settings
        self.starts = PairStarts(settings.public)
        self.ids = PublicIds(b"")
        self.broker = ServerBroker(self, features_before())
        self.backend = ServerBackend(self)
        self.coordinator = ServerCoordinator(self)
        self.inspect = ServerInspect(self)
        self._warned = False
        self.open()

    async def connect(self) -> None:
        self.link = Link(self.settings, self.backend.told, self._back)
        await self.link.open()
        try:
            self._judge()
            if self.settings.queues:
                await self.inspect.declare(self.settings.queues)
        except BaseException:
            await self.link.close()
            raise

    async def disconnect(self) -> None:
        await self.coordinator.stop_telling()
        await self.backend.stop()
        await self.link.close()

    def abandon(self) -> None:
        self.starts.forked()
        self.broker.forked()
        self.backend.forked()
        self.coordinator.forked()

    def close(self) -> None:
        super().close()
        self.starts.close()

    def is_open(self) -> bool:
        return not (self._closed or self._forked)

    def reopen(self) -> None:
        """In a forked child, before the first thing that does not go through `run`."""
        if self._forked:
            self.run(_nothing())

    async def administer(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Have the broker carry out an administrative command: see `penstock users`, `tokens`, `namespaces` and
        `broker`. Raises `AccessRefused` for who may not."""
        answer = await self.link.call("administer", command, msgspec.json.encode(arguments))
        return msgspec.json.decode(answer)

    def _back(self, wire: Wire) -> None:
        """A new connection: say again what the broker knew of us by the former."""
        self.coordinator.join_again(wire)
        self.backend.watch_again(wire)

    def _judge(self) -> None:
        """Take over what the broker promises; say, or refuse, what it does not."""
        welcome = self.link.welcome
        assert welcome is not None
        self.ids = PublicIds(welcome.secret)
        self.broker.features = welcome.features
        wanted = self.settings.durability
        if wanted in ("power", "strict") and welcome.features.durability != "power":
            weakness = "the broker loses what it accepted when the power goes: start it with --durability power"
            if wanted == "strict":
                raise ConfigError(f"{self.url}: durability='strict', but {weakness}")
            if not self._warned:
                self._warned = True
                log.warning("%s: %s", self.url, weakness)


async def _nothing() -> None:
    await asyncio.sleep(0)
