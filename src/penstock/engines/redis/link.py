"""The way to the leader: found among the hosts, kept, and found anew when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from penstock.engines.network.keeping import keep
from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.redis import greeting, scripts
from penstock.engines.redis.faults import PASSING, Broken, NotNow, code_of, translate
from penstock.engines.redis.greeting import Server
from penstock.engines.redis.settings import Settings
from penstock.engines.redis.wire import Part, Push, Wire, checked
from penstock.errors import BrokerUnavailable, ConfigError, OutcomeUnknown, StoreError

PATIENCE = 30.0
"""Seconds that a call which may be repeated goes on trying."""
LOOK = 0.5
"""Seconds between two looks at whether the server still answers."""
PING = 5.0
"""Seconds after which a quiet line for news is tried."""
GREETING = 3.0
"""Seconds that a server may take until it is known what it is."""
SENTINEL_CHECK = 2.0
OPENING = 10.0
"""Seconds that opening may take, over all tries: an election takes some of them."""

log = logging.getLogger("penstock.engine")


class Link:
    """Two connections to the leader: for calls, and for news. `news` is given what is published on the channel
    `client`; `back` is called after every new connection, when news may have been missed."""

    def __init__(self, settings: Settings, client: str, news: Push, back: Callable[[], object]) -> None:
        self._settings, self._client = settings, client
        self._news, self._back = news, back
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._listener: Wire | None = None
        self._reader: Wire | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._trouble = "not connected yet"
        self._head: tuple[Part, ...] = (
            1,
            settings.prefix,
            float(settings.result_expires),
            int(settings.result_max_bytes),
        )
        self._scripts: dict[str, scripts.Script] = {}
        self._sentinels = list(settings.address.hosts)
        self.place: tuple[str, int] = settings.address.hosts[0]
        self.server: Server | None = None

    # Opening and keeping.

    async def open(self, deadline: Deadline) -> None:
        """Connect for the first time. Raises `ConfigError`, `StoreError` and `BrokerUnavailable`."""
        for pause in pauses():
            try:
                await self._connect()
                break
            except (ConfigError, StoreError):
                raise
            except BrokerUnavailable:
                if deadline.left() <= pause or not self._settings.fails_over:
                    raise
            await asyncio.sleep(pause)
        self._keeper = asyncio.create_task(keep(self))

    async def close(self) -> None:
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._lose_reader()
        self._drop("the engine was closed")

    def lose(self, reason: str) -> None:
        log.warning("%s: %s; looking for the leader", self._settings.public, reason)
        self._drop(reason)

    async def reconnect(self) -> None:
        await self._connect()
        log.warning("%s: connected again to %s:%d", self._settings.public, *self.place)

    def failed(self, error: Exception) -> None:
        self._trouble = str(error)

    async def watch(self) -> str:
        """Returns why this connection is of no use any more."""
        wire, listener = self._wire, self._listener
        assert wire is not None and listener is not None
        ends = (wire.lost, listener.lost)
        patience = self._settings.timeout + (self._settings.wait_timeout if self._settings.wait else 0.0)
        pinged = asked = self._loop.time()
        while True:
            await asyncio.wait(ends, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    return end.result()
            now = self._loop.time()
            for one in (wire, listener):
                if one.silence() > patience:
                    return f"{self.place[0]}:{self.place[1]} has not answered for {patience:g} s"
            if now - max(pinged, listener.heard) > PING:
                pinged = now
                pong = listener.call("PING")
                pong.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            if self._settings.master is not None and now - asked > SENTINEL_CHECK:
                asked = now
                with contextlib.suppress(BrokerUnavailable, ConfigError):  # the leader answers, whatever they say
                    if (place := await self._ask_sentinels()) != self.place:
                        return f"the leader is {place[0]}:{place[1]} now"

    def _drop(self, reason: str) -> None:
        self._trouble = reason
        self._up.clear()
        for wire in (self._wire, self._listener):
            if wire is not None:
                wire.close(reason)
        self._wire = self._listener = None

    async def _connect(self) -> None:
        """Find the leader and talk to it. Raises errors of ours."""
        refused: Exception | None = None
        for host, port in await self._candidates():
            try:
                # A frozen server takes connections, and says nothing.
                async with asyncio.timeout(min(self._settings.timeout, GREETING)):
                    await self._settle_down(host, port)
                return
            except Exception as error:
                found = translate(error, self._settings.public)
                if isinstance(found, ConfigError):
                    raise found from error
                if refused is None or isinstance(found, StoreError):
                    refused = found if found is not error else error
        raise refused or BrokerUnavailable(f"{self._settings.public}: there is no host")

    async def _settle_down(self, host: str, port: int) -> None:
        wire = await greeting.dial(self._settings, host, port)
        listener = None
        try:
            server = await greeting.examine(wire, self._settings)
            if server.role != "master":
                raise NotNow(f"{host}:{port} is a replica, not the leader")
            self._scripts = scripts.load(server.version)
            await checked([wire.call("SCRIPT", "LOAD", one.text) for one in self._scripts.values()])
            listener = await greeting.dial(self._settings, host, port, self._news)
            listener.tell("SUBSCRIBE", f"{self._settings.prefix}:c:{self._client}")
            await checked([listener.call("PING")])  # answered behind it: now it listens
        except BaseException:
            wire.close()
            if listener is not None:
                listener.close()
            raise
        self._wire, self._listener, self.server, self.place = wire, listener, server, (host, port)
        self._up.set()
        self._back()

    async def _candidates(self) -> Sequence[tuple[str, int]]:
        if self._settings.master is not None:
            return [await self._ask_sentinels()]
        hosts = list(self._settings.address.hosts)
        if self.place in hosts:  # where it was last is not where to look first, when it was lost
            hosts = [*(host for host in hosts if host != self.place), self.place] if self.server else hosts
        return hosts

    async def _ask_sentinels(self) -> tuple[str, int]:
        """Where the leader is. Raises `ConfigError` when all that answer know no such master."""
        name = self._settings.master or ""
        trouble = "no Sentinel answers"
        unknown = False
        for host, port in list(self._sentinels):
            try:
                wire = await greeting.dial_sentinel(self._settings, host, port)
                try:
                    async with asyncio.timeout(2.0):
                        (answer,) = await checked([wire.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)])
                finally:
                    wire.close()
            except (OSError, Broken) as error:
                trouble = f"Sentinel {host}:{port}: {str(error) or 'no answer'}"
                continue
            except hiredis.ReplyError as error:
                raise translate(error, self._settings.public) from error
            if answer:
                self._sentinels.remove((host, port))
                self._sentinels.insert(0, (host, port))  # the next question begins with one that lives
                return answer[0].decode(), int(answer[1])
            unknown = True
        if unknown:
            raise ConfigError(
                f"{self._settings.public}: the Sentinels know no master named {name!r}: check the URL's path"
            )
        raise BrokerUnavailable(f"{self._settings.public}: {trouble}")

    # Calls.

    async def once(self, verb: str, args: Sequence[Part], timeout: float) -> Any:
        """Run a script that must not run twice. Raises `BrokerUnavailable` when it did not run, `OutcomeUnknown` when
        it may have."""
        deadline = Deadline(timeout, self._loop.time)
        while True:
            wire = await self._connected(deadline)
            try:
                async with asyncio.timeout(deadline.left()):
                    return await self._ask(wire, verb, args)
            except (TimeoutError, Broken) as error:
                if isinstance(error, Broken) and not error.sent:
                    continue
                raise OutcomeUnknown(
                    f"{self._settings.public}: {str(error) or 'no answer in time'}; it may have been done"
                ) from None
            except NotNow as error:
                await self._try_elsewhere(error, deadline)

    async def again(self, verb: str, args: Sequence[Part], patience: float = PATIENCE) -> Any:
        """Run a script that may run twice. Raises `BrokerUnavailable` when it never ran, `OutcomeUnknown` when it may
        have."""
        deadline = Deadline(patience, self._loop.time)
        lost = ""
        while True:
            try:
                wire = await self._connected(deadline)
                try:
                    return await self._ask(wire, verb, args)
                except NotNow as error:
                    await self._try_elsewhere(error, deadline)
            except BrokerUnavailable as error:
                if lost:
                    raise OutcomeUnknown(f"{self._settings.public}: {lost}; it may have been done") from error
                raise
            except Broken as error:
                if error.sent:
                    lost = str(error)

    async def view(self, verb: str, args: Sequence[Part]) -> Any:
        """Run the script `view` on a replica, where that is asked for and there is one; else `verb` on the leader. What
        a replica says may be a little old."""
        if self._settings.read_replica:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    return await self._ask(await self._replica(), "view", args)
            except Exception as error:  # whatever it is, the leader knows, too
                log.info("%s: not read from a replica: %s", self._settings.public, error)
                self._lose_reader()
        return await self.again(verb, args)

    async def _replica(self) -> Wire:
        """A connection to a replica. Raises what the driver raises, `NotNow` when there is none."""
        if self._reader is not None and not self._reader.lost.done():
            return self._reader
        facts = greeting.info(await self.command("INFO", "replication"))
        places = greeting.replicas(facts)
        if not places:
            raise NotNow("no replica is online")
        host, port = random.choice(places)
        reader = await greeting.dial(self._settings, host, port)
        await checked([reader.call("SCRIPT", "LOAD", self._scripts["view"].text)])
        self._reader = reader
        return reader

    def _lose_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    async def command(self, *parts: Part) -> Any:
        """A plain command that changes nothing."""
        wire = await self._connected(Deadline(PATIENCE, self._loop.time))
        try:
            (answer,) = await checked([wire.call(*parts)])
        except (Broken, hiredis.ReplyError) as error:
            raise translate(error, self._settings.public) from error
        return answer

    async def wait(self) -> int:
        """How many replicas have all that was written before. Raises `OutcomeUnknown`."""
        wire = await self._connected(Deadline(PATIENCE, self._loop.time))
        try:
            (answer,) = await checked([wire.call("WAIT", self._settings.wait, int(self._settings.wait_timeout * 1000))])
        except (Broken, hiredis.ReplyError) as error:
            raise OutcomeUnknown(
                f"{self._settings.public}: {error}; it is not known how many replicas have it"
            ) from error
        return int(answer)

    async def _connected(self, deadline: Deadline) -> Wire:
        while self._wire is None or self._wire.lost.done():
            if self._closed:
                raise BrokerUnavailable(f"{self._settings.public}: the engine is closed")
            self._up.clear()
            try:
                async with asyncio.timeout(deadline.left()):
                    await self._up.wait()
            except TimeoutError:
                trouble = self._trouble.removeprefix(f"{self._settings.public}: ")
                raise BrokerUnavailable(f"{self._settings.public}: {trouble}") from None
        return self._wire

    async def _ask(self, wire: Wire, verb: str, args: Sequence[Part]) -> Any:
        script = self._scripts[verb]
        answer = await wire.call("EVALSHA", script.sha, *self._head, *args)
        if isinstance(answer, hiredis.ReplyError):
            if code_of(answer) == "NOSCRIPT":  # somebody flushed them
                answer = await wire.call("EVAL", script.text, *self._head, *args)
            if isinstance(answer, hiredis.ReplyError):
                if code_of(answer) in PASSING:
                    if code_of(answer) == "READONLY":
                        wire.close(f"{self.place[0]}:{self.place[1]} is not the leader any more")
                    raise NotNow(str(answer))
                raise translate(answer, self._settings.public) from None
        return answer

    async def _try_elsewhere(self, error: NotNow, deadline: Deadline) -> None:
        if deadline.left() < 0.1:
            raise BrokerUnavailable(f"{self._settings.public}: {error}") from None
        await asyncio.sleep(0.1)
