"""The suite on a real PostgreSQL, where real time passes."""

from __future__ import annotations

import asyncpg

from penstock.broker import Key
from penstock.engine import Engine
from penstock.engines.postgres import open_engine
from penstock.testing.conformance import Kit


class PostgresKit(Kit):
    def __init__(self, url: str, *, blocking: bool) -> None:
        self._url = url
        super().__init__(open_engine(url), blocking=blocking, unit=0.3)

    def open_second(self) -> Engine:
        return open_engine(self._url)

    async def corrupt(self, key: Key) -> bool:
        async def damage() -> None:
            connection = await asyncpg.connect(self._url)
            # As many bytes as before, so that the counters stay right, but no message.
            await connection.execute(
                "UPDATE penstock.task SET body = decode(repeat('c1', octet_length(body)), 'hex') WHERE pos = $1", key
            )
            await connection.close()

        await self.call(damage())
        return True
