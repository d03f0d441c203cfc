"""The broker: its stores, its connections, and who is let in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import penstock
from penstock.broker import Features
from penstock.engines.sqlite.engine import features
from penstock.errors import AccessRefused, ConfigError, PenstockError
from penstock.protocol import NEWEST, OLDEST, calls
from penstock.protocol.frames import MAX_FRAME
from penstock.protocol.refusals import code_of
from penstock.protocol.replies import Value, Welcome
from penstock.protocol.requests import CallRequest, Hello
from penstock.queue import OVERFLOWS
from penstock.server.access import tokens
from penstock.server.access.book import Book
from penstock.server.access.identity import MAX_SHOWN, Identity
from penstock.server.access.rights import DEFAULT_NAMESPACE
from penstock.server.access.signing_in import Credentials, Gatekeeper
from penstock.server.administration import administer
from penstock.server.checking import MAX_MESSAGE
from penstock.server.peer import Peer
from penstock.server.session import ClientSession, session_number
from penstock.server.settings import BrokerSettings
from penstock.server.sight import Sight
from penstock.server.space import Space
from penstock.server.syncing import Syncer
from penstock.spelling import hint

TICK = 1.0
CLOCKS_APART = 5.0
"""Seconds between the clocks of a client and the broker from which on it is said."""

ENVELOPE = 4 << 10
"""Bytes of a packed message besides its body, at most."""

log = logging.getLogger("penstock.broker")


def features_of(durability: str) -> Features:
    """What a broker keeps: the embedded engine's, and publishers that are made to wait."""
    return replace(
        features(durability),
        engine="penstock",
        overflow=frozenset(OVERFLOWS),
        counts_refusals=True,
        max_message=MAX_MESSAGE - ENVELOPE,
    )


class Hot(Struct, forbid_unknown_fields=True):
    """Settings that may be changed while it runs."""

    heartbeat: float
    slow: float
    max_connections: int


HOT = frozenset(Hot.__struct_fields__)


class Broker:
    """Made on its loop. Raises `StoreError` when another process has the data, `ConfigError`."""

    def __init__(self, settings: BrokerSettings, stop: Callable[[], None]) -> None:
        """`stop` is called when nothing can be accepted any more."""
        settings.check()
        self._stop = stop
        self.broken: BaseException | None = None
        """Why nothing can be accepted any more: the process is to end, and be started anew."""
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self._loop_time = self._loop.time
        self.syncer = Syncer(self._loop)
        self.spaces: dict[str, Space] = {}
        self.peers: set[Peer] = set()
        self.sessions: dict[Peer, ClientSession] = {}
        self._numbered: dict[tuple[int, Space], Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.started = time.time()
        self.refused = 0
        self._features = features_of(settings.durability)
        self.space(DEFAULT_NAMESPACE)  # first of all: it says whose the data is
        self.book = Book(settings.data)
        self.gatekeeper = Gatekeeper(self.book)
        self.heartbeat, self.slow = settings.heartbeat, settings.slow
        self.max_connections = settings.max_connections
        self.sight = Sight(self)
        self._ticking = self._loop.create_task(self._tick())

    def space(self, name: str) -> Space:
        """The store of a namespace, opened when it is first asked for. Raises `StoreError`."""
        found = self.spaces.get(name)
        if found is None:
            found = self.spaces[name] = Space(name, self.settings, self.syncer, self._failed)
        return found

    def _failed(self, error: BaseException) -> None:
        log.critical("%s: the broker ends, and is to be started anew", error)
        self.broken = self.broken or error
        self._stop()

    # Connections (`Host`).

    def came(self, peer: Peer) -> bool:
        if len(self.peers) >= self.max_connections:
            return False
        self.peers.add(peer)
        return True

    def gone(self, peer: Peer) -> None:
        self.peers.discard(peer)
        session = self.sessions.pop(peer, None)
        if session is not None and self._numbered.get((session.number, session.space)) is peer:
            del self._numbered[session.number, session.space]

    def greet(self, peer: Peer, hello: Hello) -> None:
        self.spawn(self._greet(peer, hello))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let it go on beside the rest; its errors are its own business."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, peer: Peer, hello: Hello) -> None:
        version = min(hello.newest, NEWEST)
        if version < max(hello.oldest, OLDEST):
            older = "client" if hello.newest < OLDEST else "broker"
            peer.refuse(
                "config",
                f"the client speaks versions {hello.oldest} to {hello.newest} of the protocol, this broker "
                f"({penstock.__version__}) {OLDEST} to {NEWEST}: upgrade the {older}",
            )
            return
        namespace = hello.namespace or DEFAULT_NAMESPACE
        try:
            # A token says by itself whose it is; a certificate may be a gateway's, which has other people's tokens.
            user = hello.user or ("" if tokens.parse(hello.secret) else peer.common_name or "")
            credentials = Credentials(user, hello.secret, peer.common_name)
            identity = await self.gatekeeper.sign_in(credentials, self._address(peer, hello), namespace)
            space = self.space(namespace)
        except PenstockError as error:
            self.refused += isinstance(error, AccessRefused)
            peer.refuse(code_of(error), str(error))
            return
        except Exception:
            log.exception("a client could not be greeted")
            peer.refuse("failed", "the broker could not do this; its log tells why")
            return
        if peer.closed:
            return
        self._welcome(peer, hello, version, identity, space)

    def _address(self, peer: Peer, hello: Hello) -> str:
        """Who signs in: of a gateway that is trusted, its client, or one client's failures would be all others'."""
        is_gateway = hello.address and peer.address in self.settings.gateways
        return hello.address[:MAX_SHOWN] if is_gateway else peer.address

    def _welcome(self, peer: Peer, hello: Hello, version: int, identity: Identity, space: Space) -> None:
        number = session_number(identity.user, hello.session)
        if number:
            self._replace(number, space, peer)
        client = hello.client[:60]
        session = ClientSession(self, peer, space, identity, number, hello.names, client)
        apart = hello.time - time.time()
        if hello.time and abs(apart) > CLOCKS_APART:
            text = "%s: its clock is %+.0f s off this one's, and its countdowns are; or one of them stood still"
            log.warning(text, session, apart)
        self.sessions[peer] = session
        peer.send(
            Welcome(
                version,
                penstock.__version__,
                self._features,
                space.store.db.secret,
                self.heartbeat,
                MAX_FRAME,
                time.time(),
                identity.user,
            )
        )
        peer.welcome(session)

    def _replace(self, number: int, space: Space, peer: Peer) -> None:
        """A client that comes back has given its former connection up: what is still in it must not come after."""
        former = self._numbered.get((number, space))
        self._numbered[number, space] = peer
        if former is not None:
            former.abort()

    def administer(self, session: ClientSession, request: CallRequest) -> None:
        self.spawn(self._administer(session, request))

    async def _administer(self, session: ClientSession, request: CallRequest) -> None:
        size = len(bytes(request.arguments))
        session.peer.began(size)
        try:
            verb = calls.VERBS["administer"]
            answer = await administer(self, session, *verb.read_arguments(request.arguments))
        except Exception as error:
            session.fail(request.number, error)
        else:
            session.peer.send(Value(request.number, calls.raw(answer)))
        finally:
            session.peer.answered(size)

    # Settings that may be changed while it runs.

    def hot(self) -> dict[str, Any]:
        return {"heartbeat": self.heartbeat, "slow": self.slow, "max_connections": self.max_connections}

    def change(self, given: Mapping[str, Any]) -> None:
        """Raises `ConfigError`, and changes nothing, for what is unknown or may not be."""
        for name in given:
            if name not in HOT:
                raise ConfigError(f"{name!r} cannot be changed while the broker runs{hint(name, HOT)}")
        try:
            changed = msgspec.convert({**self.hot(), **given}, Hot)
        except msgspec.ValidationError as error:
            raise ConfigError(f"broker set: {error}") from error
        replace(
            self.settings,
            heartbeat=changed.heartbeat,
            slow=changed.slow,
            max_connections=changed.max_connections,
        ).check()
        self.heartbeat, self.slow, self.max_connections = changed.heartbeat, changed.slow, changed.max_connections
        for space in self.spaces.values():
            space.turns.slow = changed.slow

    # Time.

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = self._loop_time()
            try:
                self.book.refresh()
                for space in list(self.spaces.values()):
                    space.tick(now)
                for peer in list(self.peers):
                    peer.tick(now, self.heartbeat)
                self.sight.sample(now)
                self._check_identities()
            except Exception:  # whatever it is, the next second may do
                log.exception("upkeep failed, again in a second")

    def _check_identities(self) -> None:
        """Who was removed, or whose token has expired, is cut off."""
        now = time.time()
        for peer, session in list(self.sessions.items()):
            if not session.identity.still_valid(now):
                peer.cut("access-refused", f"user {session.identity.user!r} is not let in any more: sign in again")

    # The end.

    async def close(self) -> None:
        """Answer what has been begun, end all connections, and close the stores."""
        for space in self.spaces.values():
            space.turns.close()
        deadline = self._loop_time() + self.settings.grace
        # Polling is good enough for what happens once.
        while not all(space.turns.idle for space in self.spaces.values()) and self._loop_time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        for peer in list(self.peers):
            peer.refuse("unavailable", "the broker stops; it will be back")
        while self.peers and self._loop_time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for peer in list(self.peers):
            peer.abort()
        self._ticking.cancel()
        self.gatekeeper.close()
        await asyncio.sleep(0)
        await self._loop.run_in_executor(None, self.syncer.close)
        for space in self.spaces.values():
            space.close()
        self.book.close()
