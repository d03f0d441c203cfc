"""The suite on a real Redis server: real time, names of its own in a server that all checks share."""

from __future__ import annotations

import asyncio

from penstock.broker import Key
from penstock.engine import Engine
from penstock.engines.redis import open_engine
from penstock.engines.redis.greeting import dial
from penstock.engines.redis.settings import read_settings
from penstock.testing.conformance import Kit

UNIT = 0.3
"""Seconds that count as a while here."""


class RedisKit(Kit):
    def __init__(self, url: str, *, blocking: bool) -> None:
        self._url = url
        super().__init__(open_engine(url), blocking=blocking, unit=UNIT)

    def open_second(self) -> Engine:
        return open_engine(self._url)

    async def corrupt(self, key: Key) -> bool:
        await self.threaded(lambda: asyncio.run(damage(self._url, str(key))))
        return True


async def damage(url: str, task_id: str) -> None:
    """Overwrite the packed message of a waiting task, and leave the name of its lane before it."""
    settings = read_settings(url)
    (host, port), key = settings.address.hosts[0], f"{settings.prefix}:m"
    wire = await dial(settings, host, port)
    lane, _, data = (await wire.call("HGET", key, task_id)).partition(b" ")
    await wire.call("HSET", key, task_id, lane + b" " + b"\xc1" * len(data))
    wire.close()
