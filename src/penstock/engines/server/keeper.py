"""The way by the engine's loop: one connection, kept, and found anew when it is lost. It carries what is awaited, and
what the broker pushes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from penstock.engines.network.keeping import keep
from penstock.engines.network.patience import Deadline
from penstock.engines.server.faults import translate
from penstock.engines.server.greeting import GREETING, compare_clocks, hello
from penstock.engines.server.link import WINDOW, crowded
from penstock.engines.server.settings import Settings
from penstock.engines.server.wire import Added, LoopWire, Tell
from penstock.errors import AccessRefused, BrokerUnavailable, ConfigError
from penstock.protocol.replies import Welcome
from penstock.protocol.requests import Goodbye

LOOK = 0.5
"""Seconds between two looks at whether the broker still answers."""

log = logging.getLogger("penstock.engine")


class Keeper:
    def __init__(
        self,
        settings: Settings,
        session: int,
        tell: Tell,
        added: Added,
        back: Callable[[LoopWire], None],
        now_and_then: Callable[[], None],
    ) -> None:
        """`back` is called with every new connection, before anything else is sent on it; `now_and_then` about every
        `LOOK` seconds."""
        self._settings, self._session = settings, session
        self._tell, self._added, self._back, self._now_and_then = tell, added, back, now_and_then
        self._loop = asyncio.get_running_loop()
        self._wire: LoopWire | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._trouble = "not connected yet"
        self._said = ""
        """What was logged of it as an error."""
        self._window = asyncio.Semaphore(WINDOW)
        self.refused: Callable[[], None] = lambda: None
        """Called each time that the broker does not let in who was let in before."""
        self.welcome: Welcome | None = None

    async def open(self) -> None:
        """Connect for the first time. Raises `ConfigError`, `AccessRefused` and `BrokerUnavailable`."""
        await self._connect()
        self._keeper = asyncio.create_task(keep(self))

    async def close(self) -> None:
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._wire is not None:
            self._wire.tell(Goodbye())
            await asyncio.sleep(0)  # it is written with this turn of the loop
            await self._wire.leave("the engine was closed")

    # The way.

    async def connected(self, deadline: Deadline) -> LoopWire:
        while (wire := self.wire) is None:
            if self._closed:
                raise BrokerUnavailable(f"{self._settings.public}: the engine is closed")
            self._up.clear()
            try:
                async with asyncio.timeout(deadline.left()):
                    await self._up.wait()
            except TimeoutError:
                raise BrokerUnavailable(f"{self._settings.public}: {self._trouble}") from None
        return wire

    async def enter(self, deadline: Deadline) -> None:
        if not self._window.locked():
            await self._window.acquire()
            return
        try:
            async with asyncio.timeout(deadline.left()):
                await self._window.acquire()
        except TimeoutError:
            raise crowded(self._settings.public) from None

    def leave(self) -> None:
        self._window.release()

    def tell(self, request: object) -> None:
        if (wire := self.wire) is not None:
            wire.tell(request)

    @property
    def wire(self) -> LoopWire | None:
        """The connection, if there is one now."""
        return None if self._wire is None or self._wire.lost.done() else self._wire

    # Keeping.

    def lose(self, reason: str) -> None:
        log.warning("%s: %s; connecting again", self._settings.public, reason)
        self._said = ""
        self._drop(reason)

    async def reconnect(self) -> None:
        await self._connect()
        log.warning("%s: connected again", self._settings.public)

    def failed(self, error: Exception) -> None:
        self._trouble = str(error).removeprefix(f"{self._settings.public}: ")
        if self._trouble != self._said and isinstance(error, ConfigError):
            self._said = self._trouble
            log.error("%s: %s", self._settings.public, self._said)
        if isinstance(error, AccessRefused):
            self.refused()

    async def watch(self) -> str:
        """Returns why this connection is of no use any more."""
        wire, welcome = self._wire, self.welcome
        assert wire is not None and welcome is not None
        pinged = self._loop.time()
        while True:
            await asyncio.wait([wire.lost], timeout=LOOK)
            if wire.lost.done():
                return wire.lost.result()
            self._now_and_then()
            now = self._loop.time()
            # A broker that reads nothing of us for now still says that it is there, at its own pace.
            hasty = wire.awaits and not wire.blocked
            patience = self._settings.timeout if hasty else 3 * welcome.heartbeat
            if now - wire.heard > patience:
                return f"the broker has not answered for {patience:g} s"
            if now - max(wire.heard, pinged) > (patience / 2.5 if hasty else welcome.heartbeat):
                pinged = now
                wire.ping()

    def _drop(self, reason: str) -> None:
        self._trouble = reason
        self._up.clear()
        if self._wire is not None:
            self._wire.abort(reason)
        self._wire = None

    async def _connect(self) -> None:
        refused: BaseException | None = None
        for host, port in self._settings.address.hosts:
            try:
                async with asyncio.timeout(GREETING):
                    await self._greet(host, port)
                return
            except Exception as error:
                refused = refused or translate(error, self._settings.public)
        raise refused or BrokerUnavailable(f"{self._settings.public}: there is no host")

    async def _greet(self, host: str, port: int) -> None:
        settings = self._settings
        wire = LoopWire(self._tell, self._added)
        try:
            if settings.socket is not None:
                await self._loop.create_unix_connection(lambda: wire, settings.socket)
            else:
                name = host if settings.tls is not None else None
                await self._loop.create_connection(lambda: wire, host, port, ssl=settings.tls, server_hostname=name)
            welcome = await wire.greet(hello(settings, self._session))
        except BaseException:
            wire.abort("not connected")
            await asyncio.sleep(0)  # the loop may end with this: its next turn closes the socket
            raise
        self.welcome, self._wire = welcome, wire
        compare_clocks(settings, welcome)
        self._back(wire)
        self._up.set()
