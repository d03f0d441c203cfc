"""Reading from a standby, for listings: what it shows may be a little old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from penstock.engines.network.patience import Deadline
from penstock.engines.postgres.connecting import Connection, close, connect_once
from penstock.engines.postgres.faults import translate
from penstock.engines.postgres.settings import Settings

T = TypeVar("T")
REACHING = 2.0


class Replica:
    """One connection to a standby, made when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work(connection)` returns. Raises `BrokerError` when there is no standby, or it fails."""
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                deadline = Deadline(REACHING, time.monotonic)
                self._connection = await connect_once(self._settings, deadline, replica=True)
            try:
                return await work(self._connection)
            except Exception as error:
                self._connection.terminate()
                raise translate(error, self._settings.public) from error

    async def close(self) -> None:
        if self._connection is not None:
            await close(self._connection)
