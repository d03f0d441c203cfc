"""The engine: contracts over the connections of this process."""

from __future__ import annotations

import logging
import re

from penstock.engines.network.engine import NetworkEngine
from penstock.engines.rabbitmq.backend_face import RabbitBackend
from penstock.engines.rabbitmq.broker_face import RabbitBroker
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.coordinator_face import RabbitCoordinator
from penstock.engines.rabbitmq.core import CONNECTING, Core
from penstock.engines.rabbitmq.inspect_face import RabbitInspect
from penstock.engines.rabbitmq.replies import Replies
from penstock.engines.rabbitmq.settings import Settings
from penstock.errors import ConfigError
from penstock.message import NORMAL

OLDEST = (3, 10)
"""The first server whose quorum queues dead-letter at least once, without which a delay might lose its task."""
log = logging.getLogger("penstock.engine")


class RabbitEngine(NetworkEngine):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.login.url)
        self._settings = settings
        self.core = self._new_core()
        self._abandoned: list[Core] = []
        self.broker = RabbitBroker(self, settings)
        self.backend = RabbitBackend(self)
        self.coordinator = RabbitCoordinator(self)
        self.inspect = RabbitInspect(self)
        self.open()

    def _new_core(self) -> Core:
        return Core(self._settings, Replies(self._settings, lambda act: self.thread.soon(act)))

    def here(self) -> Core:
        """For what is called without a coroutine: in a forked child, its own core and not its parent's."""
        if self._forked:
            self.run(_nothing())
        return self.core

    async def connect(self) -> None:
        publisher = await self.core.post.link.first()
        self._check(publisher.connection)
        for queue in self._settings.queues:
            await publisher.topology.lane(self.core.post.name(queue.name, ""), NORMAL)
        if self._settings.replies:
            await self.core.replies.ensure(CONNECTING)

    def _check(self, connection: Connection) -> None:
        """What the server is, and what it does not tell."""
        found = connection.server.get("version", "")
        text = found.decode() if isinstance(found, bytes) else str(found)
        version = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
        if version < OLDEST:
            raise ConfigError(f"{self.url}: RabbitMQ {text or '?'} is too old: at least {'.'.join(map(str, OLDEST))}")
        unknown = (
            "AMQP does not tell how many nodes keep a queue: on one node, its disk is all there is; on several, "
            "what a majority has confirmed survives. See 'rabbitmq-queues quorum_status', and ?members=3"
        )
        if self._settings.durability == "strict":
            raise ConfigError(f"{self.url}: durability='strict' cannot be verified: {unknown}")
        if self._settings.passive and not self._abandoned:
            log.warning(
                "%s: declare=passive: a queue that is not a quorum queue can lose accepted tasks when its server "
                "stops or its disk fails, and AMQP does not tell: see 'rabbitmqctl list_queues name type durable'",
                self.url,
            )
        if not self._settings.replies and self._settings.members is None and not self._abandoned:
            log.warning("%s: %s", self.url, unknown)

    async def disconnect(self) -> None:
        await self.core.close()

    def abandon(self) -> None:
        # Kept, so that nothing of it is closed: sockets and lock files are the parent's, too.
        self.core.starts.forked()
        self._abandoned.append(self.core)
        self.core = self._new_core()


async def _nothing() -> None:
    """The first call in a forked child connects."""
