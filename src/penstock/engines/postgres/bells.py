"""Waking and being woken: LISTEN on one connection of its own, and who is registered as sleeping or watching.

NOTIFY takes a lock of the whole server at commit, so it is sent only when somebody is registered. A transaction that
looked at the registrations before ours was there may commit after our own look for tasks; so a look is the last one
only when all that ran at the first look after registering is over, which PostgreSQL's snapshots tell (`Horizon`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence

from penstock.broker import Demand
from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.postgres.connecting import Connection, Links
from penstock.engines.postgres.faults import translate
from penstock.errors import BrokerError

log = logging.getLogger("penstock.engine")

REGISTERED = 45.0
"""Seconds that a registration holds."""
FALLBACK = 10.0
"""Seconds after which a sleeper looks without being woken."""
RECONNECTING = 30.0


class Horizon:
    """Tells whether a look, made after registering, is the last one needed."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._pause = 0.004

    def settled(self, oldest: int, newest: int) -> bool:
        """`oldest` and `newest`: the first transaction that runs at this look, and the first that has not begun."""
        if self._newest is None:
            self._newest = newest
        return oldest >= self._newest

    def pause(self) -> float:
        """Seconds until the next look: short at first, never more than two looks a second."""
        self._pause = min(self._pause * 2, 0.5)
        return self._pause


class Bells:
    """Used on the loop thread."""

    def __init__(
        self, links: Links, schema: str, process: str, channel: str, results: Callable[[str | None], None]
    ) -> None:
        """`results` is told which buckets have new outcomes; `None`: look at all, some may have been missed."""
        self._links = links
        self.process = process
        self._own = f"penstock_{process}"
        self._channel = channel
        self._results = results
        self._sleepers: set[asyncio.Event] = set()
        self._registered: dict[int, float] = {}
        self._busy = False
        self._hushed: dict[tuple[str, tuple[str, ...]], float] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._lost = asyncio.Event()
        self._watched = 0.0
        self._parts = False
        self._register = (
            f"INSERT INTO {schema}.waiting SELECT $1, q, {schema}.now() + $3 FROM unnest($2::integer[]) q"
            " ON CONFLICT (queue, process) DO UPDATE SET until = excluded.until"
        )
        self._watch = (
            f"INSERT INTO {schema}.watching SELECT $1, {schema}.now() + $2, $3"
            " ON CONFLICT (process) DO UPDATE SET until = excluded.until, parts = excluded.parts"
        )
        self._leave = (
            f"WITH w AS (DELETE FROM {schema}.waiting WHERE process = $1)"
            f" DELETE FROM {schema}.watching WHERE process = $1"
        )

    def server_lost(self) -> None:
        """Other connections found the server lost; ours may not have noticed."""
        self._lost.set()

    async def listen(self) -> None:
        """Until the listening connection is there."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        await self._listening.wait()

    async def register(self, queues: Sequence[int]) -> bool:
        """Sleepers of this process are woken for these queues from now on. False when they are already."""
        await self.listen()
        soon = time.monotonic() + FALLBACK + 5
        if all(self._registered.get(queue, 0.0) > soon for queue in queues):
            return False
        await self._links.call(lambda c: c.execute(self._register, self.process, queues, REGISTERED), 10, repeat=True)
        until = time.monotonic() + REGISTERED
        for queue in queues:
            self._registered[queue] = until
        return True

    def registered(self) -> bool:
        """Sleepers of this process are woken for some queues."""
        return bool(self._registered)

    async def watch(self, *, parts: bool = False) -> None:
        """Tell this process of outcomes for some time to come; and of parts, since somebody asked for that."""
        await self.listen()
        if self._watched - time.monotonic() < FALLBACK + 5 or (parts and not self._parts):
            self._parts = self._parts or parts
            values = self.process, REGISTERED, self._parts
            await self._links.call(lambda c: c.execute(self._watch, *values), 10, repeat=True)
            self._watched = time.monotonic() + REGISTERED

    def busy(self) -> None:
        """This process has something to do."""
        self._hushed.clear()
        self._busy = bool(self._registered)

    def leaving(self) -> str | None:
        """This process, when it is still registered but has something to do: it is told to the server, which forgets
        the registration."""
        if not self._busy:
            return None
        self._busy = False
        self._registered.clear()
        return self.process

    def hush(self, want: Demand, seconds: float) -> None:
        """A look was in vain: without a bell, the next is needed in `seconds` only."""
        self._hushed[want.namespace, want.queues] = time.monotonic() + seconds

    def quiet(self, want: Demand) -> float:
        """Seconds until the next look is needed."""
        until = self._hushed.get((want.namespace, want.queues), 0.0)
        return until - time.monotonic() if self._registered else 0.0

    @contextlib.contextmanager
    def sleeper(self):  # type: ignore[no-untyped-def]  # a generator of one event
        event = asyncio.Event()
        self._sleepers.add(event)
        try:
            yield event
        finally:
            self._sleepers.discard(event)

    def wake(self) -> None:
        for event in self._sleepers:
            event.set()

    async def _keep(self) -> None:
        """Keep the listening connection, or make another."""
        waits, told = pauses(), False
        while True:
            connection: Connection | None = None
            try:
                connection = await self._links.connect(Deadline(RECONNECTING, time.monotonic))
                lost = self._lost = asyncio.Event()
                connection.add_termination_listener(functools.partial(_set, lost))
                await connection.add_listener(self._own, self._rung)
                await connection.add_listener(self._channel, self._told)
                waits, told = pauses(), False
                self._all_missed()
                self._listening.set()
                await lost.wait()
                connection.terminate()
            except Exception as error:  # whatever it is: without a listener, sleepers only look from time to time
                if connection is not None:
                    connection.terminate()
                ours = translate(error, self._links.settings.public)
                quiet = told or isinstance(ours, BrokerError)
                log.log(logging.DEBUG if quiet else logging.ERROR, "listening failed, and is tried again: %s", ours)
                told = told or not quiet
                await asyncio.sleep(next(waits))
            except asyncio.CancelledError:
                if connection is not None and not connection.is_closed():
                    with contextlib.suppress(Exception):
                        await connection.execute(self._leave, self.process, timeout=0.5)
                    connection.terminate()
                raise
            self._listening.clear()

    def _all_missed(self) -> None:
        self._registered.clear()
        self._hushed.clear()
        self._watched = 0.0
        self._results(None)
        self.wake()

    def _rung(self, *_: object) -> None:
        self._registered.clear()  # whoever woke us has removed it
        self._hushed.clear()
        self.wake()

    def _told(self, _connection: object, _pid: object, _channel: object, payload: str) -> None:
        self._results(payload or None)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=1)


def _set(event: asyncio.Event, _connection: object) -> None:
    event.set()
