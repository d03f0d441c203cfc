"""The way to the broker: kept, found anew when it is lost, and what was not answered is asked again."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import penstock
from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.server.faults import Broken, translate
from penstock.engines.server.settings import Settings
from penstock.engines.server.wire import Tell, Wire
from penstock.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from penstock.protocol import NEWEST, OLDEST, calls
from penstock.protocol.replies import Published, Stepped, Welcome
from penstock.protocol.requests import (
    CallRequest,
    FollowUpRequest,
    Goodbye,
    Hello,
    PublishRequest,
    StepRequest,
)

PATIENCE = 30.0
"""Seconds that a call which may be repeated goes on trying."""
GREETING = 10.0
"""Seconds that a broker may take to let us in: passwords are slow on purpose."""
LOOK = 0.5
WINDOW = 48
"""Requests at once whose answers the broker shall remember: it keeps 64."""
CLOCKS_APART = 5.0
HEAD_START = 0.5
"""Seconds before the end of a publish's time at which the broker is to say that its queue is full still."""

log = logging.getLogger("penstock.engine")


class Link:
    def __init__(self, settings: Settings, tell: Tell, back: Callable[[Wire], None]) -> None:
        """`back` is called with every new connection, before anything else is sent on it."""
        self._settings, self._tell, self._back = settings, tell, back
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._trouble = "not connected yet"
        self.session = secrets.randbits(62) | 1
        self._marks = itertools.count(1)
        self._numbers = itertools.count(1)
        self._window = asyncio.Semaphore(WINDOW)
        self.welcome: Welcome | None = None

    # Opening and keeping.

    async def open(self) -> None:
        """Connect for the first time. Raises `ConfigError`, `AccessRefused` and `BrokerUnavailable`."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._wire is not None:
            self._wire.tell(Goodbye())
            await asyncio.sleep(0)  # it is written with this turn of the loop
            self._wire.close("the engine was closed")

    async def _keep(self) -> None:
        """Watch over the connection, and connect anew as long as it takes."""
        while True:
            try:
                reason = await self._watch()
            except Exception as error:  # who watches must not fall asleep over it
                reason = str(error)
            log.warning("%s: %s; connecting again", self._settings.public, reason)
            self._drop(reason)
            said = ""
            for pause in pauses():
                await asyncio.sleep(pause)
                try:
                    await self._connect()
                    log.warning("%s: connected again", self._settings.public)
                    break
                except Exception as error:  # whatever it is, the next try may do
                    self._trouble = str(error).removeprefix(f"{self._settings.public}: ")
                    if self._trouble != said and isinstance(error, ConfigError):
                        said = self._trouble
                        log.error("%s: %s", self._settings.public, said)

    async def _watch(self) -> str:
        """Returns why this connection is of no use any more."""
        wire, welcome = self._wire, self.welcome
        assert wire is not None and welcome is not None
        pinged = self._loop.time()
        while True:
            await asyncio.wait([wire.lost], timeout=LOOK)
            if wire.lost.done():
                return wire.lost.result()
            now = self._loop.time()
            # A broker that reads nothing of us for now still says that it is there, at its own pace.
            hasty = wire.awaits and not wire.blocked
            patience = self._settings.timeout if hasty else 3 * welcome.heartbeat
            silence = now - wire.heard
            if silence > patience:
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
        wire = Wire(self._tell)
        try:
            if settings.socket is not None:
                await self._loop.create_unix_connection(lambda: wire, settings.socket)
            else:
                name = host if settings.tls is not None else None
                await self._loop.create_connection(lambda: wire, host, port, ssl=settings.tls, server_hostname=name)
            address = settings.address
            welcome = await wire.greet(
                Hello(
                    OLDEST,
                    NEWEST,
                    f"penstock {penstock.__version__} on {socket.gethostname()}"[:60],
                    settings.namespace,
                    address.user or "",
                    address.password or "",
                    self.session,
                    time=time.time(),
                )
            )
        except BaseException:
            wire.abort("not connected")
            await asyncio.sleep(0)  # the loop may end with this: its next turn closes the socket
            raise
        self.welcome, self._wire = welcome, wire
        if abs(time.time() - welcome.time) > CLOCKS_APART:
            log.warning(
                "%s: this machine's clock is %+.0f s off the broker's, and countdowns and expiries with it",
                settings.public,
                time.time() - welcome.time,
            )
        self._back(wire)
        self._up.set()

    @property
    def wire(self) -> Wire | None:
        """The connection, if there is one now."""
        return None if self._wire is None or self._wire.lost.done() else self._wire

    # Asking.

    def tell(self, request: object) -> None:
        """Send what nobody answers, if the broker is there."""
        if (wire := self.wire) is not None:
            wire.tell(request)

    async def call(self, verb: str, *arguments: object, patience: float = PATIENCE) -> Any:
        """What the verb answers; it may be asked twice."""
        request = CallRequest(next(self._numbers), verb, calls.raw(arguments))
        answer = await self._again(request, Deadline(patience, self._loop.time))
        return calls.VERBS[verb].read_answer(answer.value)

    async def call_once(self, verb: str, *arguments: object, patience: float = PATIENCE) -> Any:
        """The same for what must not be done twice. Raises `OutcomeUnknown` when it may have been done."""
        request = CallRequest(next(self._numbers), verb, calls.raw(arguments))
        deadline = Deadline(patience, self._loop.time)
        while True:
            wire = await self._connected(deadline)
            try:
                async with asyncio.timeout(deadline.left()):
                    answer = await wire.ask(request.number, request)
                return calls.VERBS[verb].read_answer(answer.value)
            except (TimeoutError, Broken) as error:
                if not isinstance(error, Broken) or error.sent:
                    raise self._unknown(error) from None

    async def publish(self, batches: list[list[bytes]], timeout: float) -> tuple[int, Published]:
        """The mark under which it was asked, and the answers. Raises `BrokerUnavailable` when nothing was done,
        `MaybePublished`."""
        deadline = Deadline(timeout, self._loop.time)
        async with self._in_window(deadline):
            mark = next(self._marks)
            request = PublishRequest(next(self._numbers), mark, False, timeout, batches)
            try:
                return mark, await self._again(request, deadline)
            except OutcomeUnknown as error:
                raise MaybePublished(mark, str(error)) from None

    async def follow_up(self, batch: list[bytes], timeout: float) -> tuple[int, Published]:
        deadline = Deadline(timeout, self._loop.time)
        async with self._in_window(deadline):
            mark = next(self._marks)
            request = FollowUpRequest(next(self._numbers), mark, False, batch)
            try:
                return mark, await self._again(request, deadline)
            except OutcomeUnknown as error:
                raise MaybePublished(mark, str(error)) from None

    def number(self) -> int:
        return next(self._numbers)

    async def step(self, request: StepRequest, patience: float) -> Stepped:
        """Raises `BrokerUnavailable` when nothing was done, `OutcomeUnknown` when it may have been."""
        deadline = Deadline(patience, self._loop.time)
        async with self._in_window(deadline):
            request.mark = next(self._marks)
            answer: Stepped = await self._again(request, deadline)
            return answer

    @asynccontextmanager
    async def _in_window(self, deadline: Deadline) -> AsyncIterator[None]:
        """One of the requests at once. Raises `BrokerUnavailable` when others take it until the deadline."""
        if self._window.locked():
            try:
                async with asyncio.timeout(deadline.left()):
                    await self._window.acquire()
            except TimeoutError:
                raise BrokerUnavailable(
                    f"{self._settings.public}: {WINDOW} requests before this one are not answered yet"
                ) from None
        else:
            await self._window.acquire()
        try:
            yield
        finally:
            self._window.release()

    async def _again(self, request: Any, deadline: Deadline) -> Any:
        """Ask until there is an answer. Who is asked again is told so."""
        sent = ""
        while True:
            try:
                wire = await self._connected(deadline)
            except BrokerUnavailable as error:
                if sent:
                    raise self._unknown(sent) from error
                raise
            left = deadline.left()
            if type(request) is PublishRequest:
                request.timeout = max(0.0, left - min(HEAD_START, left / 5))
            try:
                async with asyncio.timeout(left):
                    return await wire.ask(request.number, request)
            except TimeoutError:
                wire.forget(request.number)
                raise self._unknown("no answer in time") from None
            except Broken as error:
                if error.sent:
                    sent = str(error)
                    if hasattr(request, "again"):
                        request.again = True

    def _unknown(self, reason: object) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self._settings.public}: {reason or 'no answer in time'}; it may have been done")

    async def _connected(self, deadline: Deadline) -> Wire:
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


class MaybePublished(Exception):
    """It was sent under this mark, and not answered in time."""

    def __init__(self, mark: int, why: str) -> None:
        super().__init__(why)
        self.mark = mark
