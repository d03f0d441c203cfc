"""A connection that is made anew when it broke: to whichever host answers, with growing pauses, for as long as somebody
has time to wait."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from penstock.engines.network.patience import pauses
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.dialing import open_first
from penstock.engines.rabbitmq.settings import Settings
from penstock.errors import BrokerUnavailable, ConfigError, PenstockError

S = TypeVar("S")
log = logging.getLogger("penstock.engine")


class Link(Generic[S]):
    """`prepare` makes of a new connection what its users need: it is called once for each."""

    def __init__(self, settings: Settings, prepare: Callable[[Connection], Awaitable[S]]) -> None:
        self._settings = settings
        self._prepare = prepare
        self._session: S | None = None
        self._connection: Connection | None = None
        self._making: asyncio.Task[S] | None = None
        self._failure: PenstockError | None = None

    @property
    def connection(self) -> Connection | None:
        """The connection that lives, if one does."""
        alive = self._connection is not None and self._connection.error is None
        return self._connection if alive else None

    @property
    def session(self) -> S | None:
        """What was made of the connection last made; it may be lost."""
        return self._session

    async def first(self) -> S:
        """Connect to the first host that answers, each tried once. Raises why the last did not."""
        self._session = await self._try_hosts()
        return self._session

    async def get(self, timeout: float) -> S:
        """What is connected. Raises `BrokerUnavailable` after `timeout` seconds, and at once what waiting cannot
        help."""
        if self._session is not None and self.connection is not None:
            return self._session
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
        making = self._making
        await asyncio.wait({making}, timeout=timeout)
        if not making.done():
            why = self._failure or f"{self._settings.login.url}: no host has answered yet"
            raise BrokerUnavailable(f"no connection within {timeout:.3g} s: {why}")
        return making.result()

    async def _make(self) -> S:
        if self._connection is not None:
            self._failure = self._connection.error
            log.warning("connecting again: %s", self._connection.error)
        for pause in pauses():
            try:
                self._session = await self._try_hosts()
                return self._session
            except ConfigError:
                raise  # a wrong password does not become right
            except PenstockError as error:
                self._failure = error
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _try_hosts(self) -> S:
        settings, hosts = self._settings, self._hosts()
        while True:
            connection = await open_first(settings.login, hosts, settings.connect_timeout)
            try:
                session = await self._prepare(connection)
            except PenstockError as error:
                connection.abort(error)
                hosts = [host for host in hosts if _address(host) != connection.address]
                if isinstance(error, ConfigError) or not hosts:
                    raise
                continue
            self._connection = connection
            return session

    def _hosts(self) -> list[tuple[str, int]]:
        hosts = list(self._settings.address.hosts)
        random.shuffle(hosts)  # so that clients spread
        if self._connection is not None:
            # What was just lost comes last: a frozen host still takes connections, and answers nothing.
            lost = self._connection.address
            hosts.sort(key=lambda host: _address(host) == lost)
        return hosts

    def cut(self) -> None:
        """Break the connection as a broken network would; for tests, and when it serves no more."""
        if self._connection is not None:
            self._connection.abort(BrokerUnavailable(f"{self._settings.login.url}: the connection was cut"))

    async def close(self) -> None:
        if self._making is not None:
            self._making.cancel()
        connection = self.connection
        self._session = None
        if connection is not None:
            await connection.close()


def _address(host: tuple[str, int]) -> str:
    return f"{host[0]}:{host[1]}"
