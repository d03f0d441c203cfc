"""Callers who are users of `penstock broker`: it says who they are, and what they may do.

Each has a connection of its own, on which the broker looks at each right; nothing of its rules is repeated here.
Connections are kept for a while, since signing in with a password is slow on purpose.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import logging
import re
import secrets
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from penstock.app import Penstock
from penstock.clock import Clock, SystemClock
from penstock.errors import AccessRefused, ConfigError, PenstockError
from penstock.gateway.asking import Request
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import EVERYTHING, Caller
from penstock.gateway.steps import Step
from penstock.message import MAX_NAME
from penstock.server.access import tokens
from penstock.server.access.passwords import MAX_PASSWORD
from penstock.server.access.signing_in import Credentials
from penstock.server.access.throttle import Throttle, origin
from penstock.spelling import without_password

if TYPE_CHECKING:
    from penstock.engines.server import ServerEngine

log = logging.getLogger("penstock.gateway")
SCHEMES = ("penstock", "penstocks")
MOST = 200
"""Connections that are kept."""
EACH = 4
"""The same of one user: one for each password or token that it comes with."""
IDLE = 300.0
"""Seconds after which one that nobody uses is closed."""
OPENERS, MOST_WAITING = 8, 64
"""Sign-ins at a time, and those that are begun or wait; further ones are asked to come again."""
PAIR_ALLOWANCE, ADDRESS_ALLOWANCE = 5, 20
"""Failures of one user from one address, and of all from one address, before they have to wait."""
_AGAIN = re.compile(r"try again in ([0-9]{1,4}) s")
"""The broker's word for who comes too often, or when too many do, whatever they sign in with; see docs/protocol.md."""
CHALLENGE = {"www-authenticate": 'Bearer, Basic realm="penstock", charset="UTF-8"'}


def serves(app: Penstock) -> bool:
    """Whether the app's broker has users of its own."""
    return app.broker_url.partition("://")[0] in SCHEMES


class Seat:
    """One connection, and how many requests use it now."""

    __slots__ = ("app", "engine", "guests", "used", "user")

    def __init__(self, app: Penstock, user: str, used: float) -> None:
        self.app, self.user, self.used = app, user, used
        self.engine = cast("ServerEngine", app.engine)
        self.guests = 0


class BrokerUsers:
    """Lets in whom the app's broker lets in: by HTTP Basic, or with a token of the broker's as Bearer. Thread-safe."""

    def __init__(self, app: Penstock, most: int = MOST, clock: Clock | None = None) -> None:
        """Up to `most` connections are kept. Raises `ConfigError` for an app whose broker has no users."""
        if not serves(app):
            raise ConfigError(
                f"{without_password(app.broker_url)} has no users that a gateway could let in: give it tokens of its "
                "own, with penstock gateway token add"
            )
        if app.result_url is not None:
            raise ConfigError(
                "where results are kept elsewhere, the broker cannot say who may read them: give the gateway tokens of "
                "its own, with penstock gateway token add"
            )
        if type(most) is not int or not 1 <= most <= 10_000:
            raise ConfigError(f"gateway: the connections of users must be between 1 and 10,000, not {most!r}")
        self._app, self._most = app, most
        self._clock = clock or SystemClock()
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._seats: OrderedDict[bytes, Seat] = OrderedDict()
        """By a digest of what one signs in with, which is kept nowhere else; the one used last is last."""
        self._runs: dict[bytes, Future[None]] = {}
        self._openers = ThreadPoolExecutor(OPENERS, "penstock-sign-in")
        self._pairs = Throttle(self._clock, PAIR_ALLOWANCE)
        self._addresses = Throttle(self._clock, ADDRESS_ALLOWANCE)

    def __call__(self, request: Request) -> Caller | Step:
        """At once for who has a connection. Raises `Refused`: 401 tells nothing of what was wrong."""
        given = credentials(request)
        digest = hmac.digest(self._key, repr((given.user, given.secret)).encode(), "sha256")
        found = self._caller(digest)
        if found is not None:
            return found

        def block() -> Caller:
            self._run(digest, given, request.client).result()
            return self._opened(digest)

        async def awaited() -> Caller:
            import asyncio  # who awaits has loaded it

            # Others may wait for the same: who leaves does not end it.
            await asyncio.shield(asyncio.wrap_future(self._run(digest, given, request.client)))
            return self._opened(digest)

        return Step(block, awaited)

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._openers.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            seats = list(self._seats.values())
            self._seats.clear()
        for seat in seats:
            seat.engine.close()

    @property
    def open(self) -> int:
        """Connections that are kept."""
        return len(self._seats)

    # -- those who have a connection

    def _opened(self, digest: bytes) -> Caller:
        found = self._caller(digest)
        if found is None:  # it was closed again in this moment
            raise Refused.later(503, "busy", "too many users sign in", 1)
        return found

    def _caller(self, digest: bytes) -> Caller | None:
        with self._lock:
            seat = self._seats.get(digest)
            if seat is None:
                return None
            if not seat.engine.connected:
                self._drop(digest)  # whoever was let in before may not be any more: the broker says so, or is away
                return None
            self._seats.move_to_end(digest)
            seat.guests += 1
            seat.used = self._clock.monotonic()
        return Caller(seat.user, EVERYTHING, seat.app, partial(self._leave, digest, seat))

    def _leave(self, digest: bytes, seat: Seat) -> None:
        with self._lock:
            seat.guests -= 1
            if not seat.guests and self._seats.get(digest) is not seat:
                self._close(seat)

    def _drop(self, digest: bytes) -> None:
        """Keep it no longer. With the lock held."""
        seat = self._seats.pop(digest, None)
        if seat is not None and not seat.guests:
            self._close(seat)

    def _turn_out(self, digest: bytes, seat: Seat) -> None:
        """The broker does not let in any more who was let in before: what it still asks must end, and not be asked
        again and again, which would be a failed sign-in each time."""
        with self._lock:
            if self._seats.get(digest) is seat:
                del self._seats[digest]
        self._close(seat)

    def _close(self, seat: Seat) -> None:
        with contextlib.suppress(RuntimeError):  # this process ends, and the engine closes itself then
            self._openers.submit(seat.engine.close)  # says good-bye, and waits for that

    # -- those who sign in

    def _run(self, digest: bytes, given: Credentials, address: str) -> Future[None]:
        """One sign-in for all who come with the same at the same time."""
        with self._lock:
            run = self._runs.get(digest)
            if run is None:
                if len(self._runs) >= MOST_WAITING:
                    raise Refused.later(503, "busy", "too many users sign in", 1)
                pair = origin(address), given.user or given.secret[:16]
                wait = max(self._pairs.wait(pair), self._addresses.wait(pair[0]))
                if wait:
                    raise Refused.later(429, "too-many-failures", "too many failed sign-ins", wait)
                # Charged before it is known, or guesses made at the same time would all be free.
                within = self._pairs.charge(pair)
                run = self._runs[digest] = self._openers.submit(self._open, digest, given, address, pair, within)
                run.add_done_callback(lambda _: self._runs.pop(digest, None))
            return run

    def _open(self, digest: bytes, given: Credentials, address: str, pair: tuple[str, str], within: bool) -> None:
        try:
            app = self._app.signed_in(url_as(self._app.broker_url, given, address))
            seat = Seat(app, given.user, self._clock.monotonic())
        except AccessRefused as error:
            raise self._refused(error, given, address, pair, within) from error
        except PenstockError as error:  # of a broker that cannot be asked nobody is to blame
            log.error("sign-in of %r is not possible: %s", given.user or given.secret[:16], error)
            self._forgive(pair)
            raise Refused.later(503, "broker-unavailable", "the broker cannot be asked") from error
        self._forgive(pair)
        seat.user = seat.engine.user or given.user
        seat.engine.refused = partial(self._turn_out, digest, seat)
        try:
            self._take_place(digest, seat)
        except Refused:
            seat.engine.close()
            raise

    def _refused(
        self, error: AccessRefused, given: Credentials, address: str, pair: tuple[str, str], within: bool
    ) -> Refused:
        log.warning("sign-in of %r from %s refused: %s", given.user or given.secret[:16], address, error)
        again = _AGAIN.search(str(error))
        if again is not None:
            self._forgive(pair)  # nobody has looked whether it was right
            return Refused.later(503, "busy", "the broker lets nobody in for a moment", float(again[1]))
        if within:
            with self._lock:
                self._addresses.charge(pair[0])
        return not_signed_in()

    def _forgive(self, pair: tuple[str, str]) -> None:
        with self._lock:
            self._pairs.forgive(pair)

    def _take_place(self, digest: bytes, seat: Seat) -> None:
        now = self._clock.monotonic()
        with self._lock:
            for one, other in [*self._seats.items()]:
                if not other.guests and now - other.used > IDLE:
                    self._drop(one)
            mine = [one for one, other in self._seats.items() if other.user == seat.user]
            if len(mine) >= EACH and not self._make_room(mine):
                raise Refused.later(
                    429, "over-share", f"user {seat.user!r} is here with {EACH} passwords or tokens at once", 1
                )
            if len(self._seats) >= self._most and not self._make_room(list(self._seats)):
                raise Refused.later(503, "busy", f"{self._most:,} users are here, as many as this gateway takes", 1)
            self._seats[digest] = seat

    def _make_room(self, among: list[bytes]) -> bool:
        """Close the one that was used longest ago, and is not now."""
        idle = next((one for one in among if not self._seats[one].guests), None)
        if idle is not None:
            self._drop(idle)
        return idle is not None


def credentials(request: Request) -> Credentials:
    """What a request signs in with. Raises `Refused` (401). A password is never empty: the broker would take the
    gateway's own certificate for the user's."""
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and tokens.parse(text.strip()):
        return Credentials("", text.strip())
    if kind.lower() == "basic" and len(text) <= 4 * MAX_PASSWORD:
        try:
            user, _, secret = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise not_signed_in() from None
        if secret and user.isprintable() and 0 < len(user) <= MAX_NAME and len(secret) <= MAX_PASSWORD:
            return Credentials(user, secret)
    raise not_signed_in()


def not_signed_in() -> Refused:
    detail = "send a user of the broker and its password as Authorization: Basic …, or its token as Bearer …"
    return Refused(401, "not-signed-in", detail, CHALLENGE)


def url_as(url: str, given: Credentials, address: str) -> str:
    """The broker's URL with another user in it, and with whom that is for."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    hosts = authority.rpartition("@")[2]
    login = f"{quote(given.user, safe='')}:{quote(given.secret, safe='')}"
    told = "&".join(part for part in (query, f"client={quote(address, safe='')}") if part)
    return f"{scheme}://{login}@{hosts}{slash}{path}?{told}"
