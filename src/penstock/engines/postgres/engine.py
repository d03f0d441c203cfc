"""The engine of PostgreSQL: its loop thread and what lives on it."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import to_declare
from penstock.engines.network.engine import NetworkEngine
from penstock.engines.network.starts import Starts
from penstock.engines.postgres.coordinating import PostgresCoordinator
from penstock.engines.postgres.core import Core
from penstock.engines.postgres.delivering import PostgresBroker, features
from penstock.engines.postgres.inspecting import PostgresInspect
from penstock.engines.postgres.keeping import PostgresBackend
from penstock.engines.postgres.settings import Settings
from penstock.engines.postgres.transactional import PostgresTransactional
from penstock.message import Message


class PostgresEngine(NetworkEngine):
    """See `penstock.engine.Engine`. A process that publishes has one connection; one that waits for results has one
    more, to listen; a worker has about three, and never more than five."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.public)
        self.settings = settings
        self.starts = Starts(f"{settings.public}?schema={settings.schema}")
        self._core: Core | None = None
        self._abandoned: list[Core] = []
        """The parent's, never closed here: to the driver its connections look like ours."""
        self.broker = PostgresBroker(self, settings.durability)
        self.backend = PostgresBackend(self)
        self.coordinator = PostgresCoordinator(self, settings.schema)
        self.inspect = PostgresInspect(self, settings.schema)
        self.open()

    @property
    def core(self) -> Core:
        """What lives on the loop thread: for coroutines that run there."""
        assert self._core is not None, "the engine runs its own coroutines only"
        return self._core

    def live(self) -> Core:
        """The core of this process: for calls that are no coroutines."""
        if self._forked:
            self.run(_nothing())
        return self.core

    async def connect(self) -> None:
        self._core = await Core.open(self.settings, self.starts)
        self.broker.features = features(self._core.durability)
        self.transactional = PostgresTransactional(self.settings, self._core.ids, self._learn)
        if self.settings.queues:
            namespace = self.settings.declared_in
            await self.inspect.declare(await to_declare(self.inspect, self.settings.queues, namespace), namespace)

    async def _learn(self, messages: Sequence[Message]) -> None:
        publisher = self.core.publisher
        await self.core.call(lambda connection: publisher.learn(connection, messages))

    async def disconnect(self) -> None:
        if self._core is not None:
            await self._core.close()
        self.starts.close()

    def abandon(self) -> None:
        if self._core is not None:
            self._abandoned.append(self._core)
        self._core = None
        self.starts.forked()


async def _nothing() -> None:
    pass
