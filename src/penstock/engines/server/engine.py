"""An open engine of a broker."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from penstock.broker import to_declare
from penstock.engines.network.engine import NetworkEngine
from penstock.engines.network.starts import PairStarts
from penstock.engines.server.backend_face import ServerBackend
from penstock.engines.server.broker_face import ServerBroker, features_before, interruptions
from penstock.engines.server.coordinator_face import ServerCoordinator
from penstock.engines.server.inspect_face import ServerInspect
from penstock.engines.server.keeper import Keeper
from penstock.engines.server.line import Line, LineWire
from penstock.engines.server.link import Link
from penstock.engines.server.posting import GatheringLink
from penstock.engines.server.settings import Settings
from penstock.engines.server.wire import LoopWire
from penstock.errors import BlockingCallInLoop, BrokerUnavailable, ConfigError
from penstock.protocol.frames import frame
from penstock.public_ids import PublicIds

T = TypeVar("T")
log = logging.getLogger("penstock.engine")


class ServerEngine(NetworkEngine):
    """One namespace of one broker. Times (leases, delays, expiry) are the broker's."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.public)
        self.settings = settings
        self.starts = PairStarts(settings.public)
        self.ids = PublicIds(b"")
        self.broker = ServerBroker(self, features_before())
        self.backend = ServerBackend(self)
        self.coordinator = ServerCoordinator(self)
        self.inspect = ServerInspect(self)
        self._warned = False
        self.refused: Callable[[], None] = lambda: None
        """Called on the loop each time that the broker does not let in any more who was let in before; it is asked
        again all the same."""
        self.open()

    @property
    def link(self) -> Link:
        """By the way of who asks: the loop's thread, or its own."""
        return self._gathering if threading.get_ident() == self._loop_ident else self._lone

    async def connect(self) -> None:
        self._loop_ident = threading.get_ident()
        self._lone = Link(self.settings.public)
        self.line = Line(self.settings, self._lone.session, self.backend.told, self._join_line)
        self.line.interrupted = _interrupt_line
        self._lone.go(self.line)
        self._gathering = GatheringLink(self.settings.public)
        self.keeper = Keeper(
            self.settings,
            self._gathering.session,
            self.backend.told,
            self.backend.part_listening.added,
            self._back,
            self._now_and_then,
        )
        self.keeper.refused = lambda: self.refused()
        self._gathering.go(self.keeper)
        await self.keeper.open()
        try:
            self._judge()
            if self.settings.queues:
                namespace = self.settings.declared_in
                await self.inspect.declare(await to_declare(self.inspect, self.settings.queues, namespace), namespace)
        except BaseException:
            await self.keeper.close()
            raise

    async def disconnect(self) -> None:
        await self.coordinator.stop_telling()
        await self.backend.stop()
        self.line.close()
        await self.keeper.close()

    def abandon(self) -> None:
        self.line.forget()
        self.starts.forked()
        self.broker.forked()
        self.backend.forked()
        self.coordinator.forked()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """On the caller's own thread and connection, where nothing suspends."""
        if self._forked:
            self._reopen(call)
        if self._closed:
            call.close()
            raise BrokerUnavailable("the engine is closed")
        if threading.get_ident() == self._loop_ident:
            call.close()
            raise BlockingCallInLoop("a blocking call from the network thread would wait for itself")
        try:
            call.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        call.close()
        raise RuntimeError("a call of this engine suspended, which only awaited ones may")

    def close(self) -> None:
        super().close()
        self.starts.close()

    def interrupt_steps(self) -> None:
        """Cut short what waits for work. Safe in a signal handler."""
        if self.is_open():
            self.line.interrupt()
            self.thread.soon(self._interrupt_awaited)

    def _interrupt_awaited(self) -> None:
        if (wire := self.keeper.wire) is not None:
            for request in interruptions(wire.waiting_steps()):
                wire.tell(request)

    def _back(self, wire: LoopWire) -> None:
        """A new connection of the loop: say again what the broker knew of us by the former."""
        for request in self.coordinator.joins(self._gathering):
            wire.tell(request)
        self.backend.watch_again(wire)
        self.backend.part_listening.listen_again(wire)

    def _now_and_then(self) -> None:
        self.line.tend()
        self.backend.enter_late()

    def _join_line(self, wire: LineWire) -> None:
        """A new connection of blocking callers: workers belong to it."""
        for request in self.coordinator.joins(self._lone):
            wire.send(frame(request), time.monotonic() + 1.0)

    @property
    def user(self) -> str:
        """Who the broker says has signed in; "" of one that does not say."""
        return "" if self.keeper.welcome is None else self.keeper.welcome.user

    @property
    def connected(self) -> bool:
        """There is a connection now."""
        return self.is_open() and self.keeper.wire is not None

    def is_open(self) -> bool:
        return not (self._closed or self._forked)

    def reopen(self) -> None:
        """In a forked child, before the first thing that does not go through `run`."""
        if self._forked:
            self.run(_nothing())

    async def administer(self, command: str, arguments: Mapping[str, Any]) -> Any:
        """Have the broker carry out an administrative command: see `penstock users`, `tokens`, `namespaces` and
        `broker`. Raises `AccessRefused` for who may not."""
        answer = await self.link.call("administer", command, msgspec.json.encode(arguments))
        return msgspec.json.decode(answer)

    def _judge(self) -> None:
        """Take over what the broker promises; say, or refuse, what it does not."""
        welcome = self.keeper.welcome
        assert welcome is not None
        self.ids = PublicIds(welcome.secret)
        self.broker.features = welcome.features
        wanted = self.settings.durability
        if wanted in ("power", "strict") and welcome.features.durability != "power":
            weakness = "the broker loses what it accepted when the power goes: start it with --durability power"
            if wanted == "strict":
                raise ConfigError(f"{self.url}: durability='strict', but {weakness}")
            if not self._warned:
                self._warned = True
                log.warning("%s: %s", self.url, weakness)


async def _nothing() -> None:
    await asyncio.sleep(0)


def _interrupt_line(wire: LineWire) -> None:
    for request in interruptions(wire.waiting_steps()):
        wire.send(frame(request), time.monotonic() + 1.0)
