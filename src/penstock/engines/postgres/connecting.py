"""Finding the primary among the hosts of the URL, and connecting to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import asyncpg

from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.postgres.faults import cause, is_broken, sqlstate, translate
from penstock.engines.postgres.settings import Settings
from penstock.errors import BrokerUnavailable, OutcomeUnknown

log = logging.getLogger("penstock.engine")
Connection = Any
"""An `asyncpg.Connection`; the driver's stubs are generic over record classes, which nobody here uses."""

PLANNING = {"jit": "off", "enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"}
"""Queues are empty and full within a second: plans must not hang on statistics."""


async def connect_once(settings: Settings, deadline: Deadline, *, replica: bool = False) -> Connection:
    """A connection to the primary (or to a standby): all hosts are tried at once, so that one that is silent does not
    hold up the others. Raises our errors."""
    seconds = min(settings.timeout, max(deadline.left(), 0.1))
    tries = [asyncio.ensure_future(_try(settings, *host, seconds, replica)) for host in settings.address.hosts]
    errors: list[BaseException] = []
    chosen: Connection = None
    try:
        for finished in asyncio.as_completed(tries):
            try:
                chosen = await finished
                return chosen
            except Exception as error:
                errors.append(error)
    finally:
        for one in tries:
            one.cancel()
            one.add_done_callback(lambda other: _close_late(other, chosen))
    wrong = [error for error in errors if not isinstance(error, BrokerUnavailable)]
    if wrong:
        raise wrong[0]
    reasons = "; ".join(str(error) for error in errors)
    raise BrokerUnavailable(f"{settings.public}: no server that could be used: {reasons}") from errors[0].__cause__


async def _try(settings: Settings, host: str, port: int, seconds: float, replica: bool) -> Connection:
    """Raises `BrokerUnavailable` when another host may do."""
    try:
        connection = await dial(settings, host, port, seconds)
        standby = await _is_standby(connection, seconds)
    except Exception as error:
        ours = translate(error, settings.public)
        if isinstance(ours, OutcomeUnknown | BrokerUnavailable):
            raise BrokerUnavailable(f"{host}:{port}: {cause(error)}") from error
        raise ours from error
    if standby == replica:
        return connection
    connection.terminate()
    raise BrokerUnavailable(f"{host}:{port} is {'read-only, a standby' if standby else 'the primary'}")


async def _is_standby(connection: Connection, seconds: float) -> bool:
    try:
        standby: bool = await connection.fetchval(
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool", timeout=seconds
        )
    except BaseException:  # cancelled, too: another host was quicker
        connection.terminate()
        raise
    return standby


def _close_late(other: asyncio.Future[Connection], chosen: Connection) -> None:
    """Of two hosts that will do, one is enough."""
    if not other.cancelled() and other.exception() is None and other.result() is not chosen:
        other.result().terminate()


async def connect(settings: Settings, deadline: Deadline, failed: Callable[[BrokerUnavailable], None]) -> Connection:
    """The same, again and again until the deadline: during a failover there is no primary for a while. `failed` is
    called with each failure."""
    for pause in pauses():
        try:
            return await connect_once(settings, deadline)
        except BrokerUnavailable as error:
            failed(error)
            if deadline.left() <= pause:
                raise
            await asyncio.sleep(pause)
    raise AssertionError("pauses never end")


async def dial(settings: Settings, host: str, port: int, seconds: float) -> Connection:
    server = {**PLANNING, "application_name": "penstock", "lock_timeout": "5s"}
    if settings.durability == "process":
        server["synchronous_commit"] = "off"
    return await asyncpg.connect(
        host=host,
        port=port,
        user=settings.address.user,
        password=settings.address.password,
        database=settings.database,
        timeout=seconds,
        ssl=settings.sslmode,  # the driver takes libpq's words
        server_settings=server,
        statement_cache_size=200,
        max_cached_statement_lifetime=0,
    )


ATTEMPT = 6.0
"""Seconds for one try of a call: a server that is frozen, or cut off, is left for another one then."""


async def close(connection: Connection) -> None:
    """Say good-bye; the server may be gone, or silent."""
    try:
        await connection.close(timeout=0.5)
    except Exception:
        connection.terminate()


class Links:
    """The connections of one process: few, opened when needed, replaced when broken."""

    MOST = 4

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._idle: list[Connection] = []
        self._room = asyncio.Semaphore(self.MOST)
        self._closed = False
        self._missing = False
        """No primary was found at the last try."""
        self.lost: Callable[[], None] = _nobody
        """Called when the server was lost: whoever has a connection of his own should look after it."""

    async def connect(self, deadline: Deadline) -> Connection:
        """A connection for the caller alone, once there is a primary. That there is none is logged once, and that it is
        found again."""
        connection = await connect(self.settings, deadline, self._missed)
        if self._missing:
            self._missing = False
            log.warning("%s: connected again", self.settings.public)
        return connection

    def _missed(self, error: BrokerUnavailable) -> None:
        if not self._missing:
            self._missing = True
            log.warning("%s; looking for the primary", error)

    async def take(self, deadline: Deadline) -> Connection:
        """An idle connection, or a new one. Raises `BrokerUnavailable` at the deadline."""
        if self._room.locked():
            try:
                async with asyncio.timeout(max(deadline.left(), 0.001)):
                    await self._room.acquire()
            except TimeoutError:
                raise BrokerUnavailable(f"{self.settings.public}: no connection was free in time") from None
        else:
            await self._room.acquire()  # at once
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return await self.connect(deadline)
        except BaseException:
            self._room.release()
            raise

    def give(self, connection: Connection, *, broken: bool = False) -> None:
        self._room.release()
        if broken or self._closed:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)

    def drop_idle(self) -> None:
        """What else is open leads to the same lost server."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()
        self.lost()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await close(connection)

    async def call(self, work: Any, seconds: float, *, repeat: bool) -> Any:
        """What `work(connection)` returns. `repeat`: it may be done twice, and is, until the deadline, when the
        connection breaks; else that raises `OutcomeUnknown`. Raises our errors only."""
        deadline = Deadline(seconds, time.monotonic)
        waits = pauses()
        while True:
            connection = await self.take(deadline)
            try:
                async with asyncio.timeout(max(min(deadline.left(), ATTEMPT), 0.001)):
                    result = await work(connection)
            except asyncio.CancelledError:
                self.give(connection, broken=True)
                raise
            except Exception as error:
                broken = is_broken(error) or sqlstate(error) in ("25006", "57P03")
                self.give(connection, broken=broken)
                if broken:
                    self.drop_idle()
                ours = translate(error, self.settings.public)
                again = isinstance(ours, BrokerUnavailable) and sqlstate(error) != "57014"
                again = again or (repeat and isinstance(ours, OutcomeUnknown))
                pause = next(waits)
                if not again or deadline.left() <= pause:
                    if repeat and isinstance(ours, OutcomeUnknown):
                        raise BrokerUnavailable(str(ours)) from error
                    raise ours from error
                await asyncio.sleep(pause)
            else:
                self.give(connection)
                return result


def _nobody() -> None:
    pass
