"""An open Redis engine."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Sequence
from typing import Any

from penstock.broker import to_declare
from penstock.clock import Clock
from penstock.engines.network.engine import NetworkEngine
from penstock.engines.network.patience import Deadline
from penstock.engines.network.starts import Starts
from penstock.engines.redis.console import RedisInspect
from penstock.engines.redis.crews import RedisCoordinator
from penstock.engines.redis.greeting import Server
from penstock.engines.redis.link import OPENING, Link
from penstock.engines.redis.names import random_name
from penstock.engines.redis.outcomes import RedisBackend
from penstock.engines.redis.settings import Settings, read_settings
from penstock.engines.redis.tasks import RedisBroker, features_of
from penstock.engines.redis.wire import Part
from penstock.errors import ConfigError
from penstock.queue import Queue

log = logging.getLogger("penstock.engine")


class RedisEngine(NetworkEngine):
    """One leader, behind one URL. Times (leases, delays, expiry) are the server's."""

    link: Link

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.public)
        self.settings = settings
        self.client = random_name()
        """The name of the channel on which the server tells this process what it waits for."""
        self.starts = Starts(settings.scope)
        self.broker = RedisBroker(self)
        self.backend = RedisBackend(self)
        self.coordinator = RedisCoordinator(self)
        self.inspect = RedisInspect(self)
        self._warned = False
        self.open()

    async def connect(self) -> None:
        self.link = Link(self.settings, self.client, self._news, self._back)
        deadline = Deadline(OPENING, asyncio.get_running_loop().time)
        await self.link.open(deadline)
        try:
            self._judge(self.link.server)
            if self.settings.queues:
                namespace = self.settings.declared_in
                queues = await to_declare(self.inspect, self.settings.queues, namespace)
                await self.inspect.declare(queues, namespace, patience=deadline.left())
        except BaseException:
            await self.link.close()
            raise

    async def disconnect(self) -> None:
        await self.link.close()

    def abandon(self) -> None:
        self.client = random_name()
        self.starts.forked()
        self.broker.forked()
        self.backend.forked()

    def _after_fork_in_child(self) -> None:
        super()._after_fork_in_child()
        # Before anything else: ids are minted without a call, for tasks of another broker.
        self.broker.renew_names()

    def close(self) -> None:
        super().close()
        self.starts.close()

    def is_open(self) -> bool:
        return not (self._closed or self._forked)

    def reopen(self) -> None:
        """In a forked child, before the first thing that does not go through `run`."""
        if self._forked:
            self.run(_nothing())

    def behind(self, verb: str, args: Sequence[Part]) -> None:
        """Run a script for which nobody waits."""
        if self.is_open():
            self.thread.spawn(self.link.again(verb, args))

    def _news(self, push: list[Any]) -> None:
        if push[0] != b"message":
            return
        letter = push[2]
        try:
            if letter[:1] == b"w":
                self.broker.ring(letter[1:].decode())
            elif letter[:1] == b"r":
                self.backend.told(letter[1:])
            elif letter[:1] == b"p":
                self.backend.streams.told(letter[1:].decode())
        except (struct.error, ValueError) as error:
            log.warning("%s: a stranger wrote to our channel: %s", self.url, error)

    def _back(self) -> None:
        self.broker.ring_all()
        self.backend.ask_again()

    def _judge(self, server: Server | None) -> None:
        """Take over what the server promises; say, or refuse, what it does not."""
        if server is None:
            return
        self.broker.features = features_of(server.durability or "process")
        weaknesses = [weak for weak in (server.weakness, self.settings.weakness) if weak]
        if weaknesses and self.settings.durability == "strict":
            raise ConfigError(f"{self.url}: durability='strict', but {weaknesses[0]}")
        if (server.durability, self.settings.durability) == ("process", "process"):
            weaknesses = weaknesses[1:]  # the server's is as was asked for
        if weaknesses and not self._warned:
            self._warned = True
            for weak in weaknesses:
                log.warning("%s: %s", self.url, weak)


async def _nothing() -> None:
    pass


def open_engine(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    namespace: str = "",
    durability: str | None = None,
    result_expires: float = 86_400.0,
    result_max_bytes: int = 1 << 30,
) -> RedisEngine:
    """Connect to a Redis or Valkey server (6.2 or later): `redis://user:password@host:6379/0`, `rediss://` (TLS),
    `unix:///path/to.sock`, `sentinel://host:26379,host2/mymaster/0`; `redis://` may name several hosts, of which one
    leads.

    Options in the URL: `db`; `prefix` of all keys (penstock); `wait`: replicas that must have what is accepted, within
    `wait_timeout` seconds (1); `timeout`: seconds of silence after which the server counts as dead (5);
    `read=replica` for listings and finished results; `durability=strict` refuses a server that loses what it accepted
    in a power cut; `ca`: a file with the authority of its certificate; `sentinel_user`, `sentinel_password`.

    `queues` are declared in `namespace`, others are made with the default bounds when they are first used. Results are
    kept `result_expires` seconds, up to `result_max_bytes`. The server's clock counts, not `clock`. Raises
    `ConfigError`, `StoreError`, `BrokerUnavailable`."""
    return RedisEngine(
        read_settings(
            url,
            queues=queues,
            namespace=namespace,
            durability=durability,
            result_expires=result_expires,
            result_max_bytes=result_max_bytes,
        )
    )
