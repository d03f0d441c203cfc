"""All that one open engine of one process is made of, once it is connected; the faces of the contracts use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.engines.network.patience import Deadline
from penstock.engines.network.starts import Starts
from penstock.engines.postgres.bells import Bells
from penstock.engines.postgres.connecting import Connection, Links, close, connect_once
from penstock.engines.postgres.durability import check_durability
from penstock.engines.postgres.faults import translate
from penstock.engines.postgres.hearing import PART, Hearing
from penstock.engines.postgres.lanes import Lanes, Numbers
from penstock.engines.postgres.looking import Lookup
from penstock.engines.postgres.migrating import migrate
from penstock.engines.postgres.publishing import Publisher
from penstock.engines.postgres.replica import Replica
from penstock.engines.postgres.settings import Settings
from penstock.engines.postgres.stepping import Stepper
from penstock.engines.postgres.watching import Watching
from penstock.errors import BrokerError, PenstockError
from penstock.public_ids import PublicIds

T = TypeVar("T")

OPENING = 10.0
"""Seconds to find a primary when the engine is opened."""
CALLING = 30.0
"""Seconds for calls that have no time-out of their own."""


class Core:
    """Made and used on the loop thread."""

    def __init__(self, settings: Settings, starts: Starts, ids: PublicIds, channel: str, durability: str) -> None:
        loop = asyncio.get_running_loop()
        schema = settings.schema
        self.settings = settings
        self.durability = durability
        """What the server keeps: see `Features`."""
        self.starts = starts
        self.ids = ids
        self.links = Links(settings)
        self.replica = Replica(settings)
        self.lanes = Lanes(schema, settings.queues)
        self.numbers = Numbers(schema)
        self.publisher = Publisher(self.links, schema, self.lanes, self.numbers, ids)
        self.stepper = Stepper(schema, self.lanes, self.numbers, self.publisher)
        self.lookup = Lookup(schema, ids)
        self.watching = Watching(self.links, self.lookup, loop)
        self.bells = Bells(self.links, schema, os.urandom(16).hex(), channel, self._told)
        self.watching.bells = self.bells
        self.hearing = Hearing(self.links, self.lookup, self.bells, loop)
        self.links.lost = self.bells.server_lost
        self.orphaned: dict[str, float] = {}
        """Workers for whom a claim may have been made of which the answer was lost, and when that was."""
        self.mending = asyncio.Lock()
        self.claims: Counter[str] = Counter()
        """Steps under way that claim, by worker."""
        self.claimed = asyncio.Event()
        """One of them has ended."""

    @classmethod
    async def open(cls, settings: Settings, starts: Starts) -> Core:
        """Connect to the primary; check what it promises; make the schema ready. Raises our errors."""
        deadline = Deadline(OPENING, time.monotonic)
        connection = await connect_once(settings, deadline)
        try:
            secret = await migrate(connection, settings)
            durability = await check_durability(connection, settings)
            channel = await connection.fetchval(f"SELECT {settings.schema}.channel()")
        except Exception as error:
            if isinstance(error, PenstockError):
                raise
            raise translate(error, settings.public) from error
        finally:
            await close(connection)
        return cls(settings, starts, PublicIds(secret), channel, durability)

    def _told(self, payload: str | None) -> None:
        self.hearing.told(payload)
        if payload is None or not payload.startswith(PART):
            self.watching.told(payload)

    async def call(
        self, work: Callable[[Connection], Awaitable[T]], *, repeat: bool = True, seconds: float = CALLING
    ) -> T:
        """What `work(connection)` returns; see `Links.call`."""
        result: T = await self.links.call(work, seconds, repeat=repeat)
        return result

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same for what may come from a replica, where the URL says `read=replica`, and one can be reached."""
        if self.settings.replica:
            with contextlib.suppress(BrokerError, OSError):
                return await self.replica.read(work)
        return await self.call(work)

    async def change(self, work: Callable[[Connection], Awaitable[T]], *, repeat: bool = True) -> T:
        """The same, in a transaction."""

        async def inside(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self.call(inside, repeat=repeat)

    async def close(self) -> None:
        await self.watching.close()
        await self.hearing.close()
        await self.bells.close()
        await self.links.close()
        await self.replica.close()
