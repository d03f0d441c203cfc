"""Signing in: by token, by the certificate of the connection, or by password, in a time and with an answer that do not
tell who is known."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from msgspec import Struct

from penstock.clock import Clock, SystemClock
from penstock.errors import AccessRefused, PenstockError
from penstock.message import MAX_NAME
from penstock.server.access import tokens
from penstock.server.access.accounts import BOOTSTRAP, Account
from penstock.server.access.book import Book
from penstock.server.access.identity import (
    MAX_SHOWN,
    ByCertificate,
    ByOneTime,
    ByPassword,
    ByToken,
    Identity,
    log,
)
from penstock.server.access.passwords import MAX_PASSWORD, Passwords, encoded
from penstock.server.access.rights import DEFAULT_NAMESPACE
from penstock.server.access.throttle import Throttle, origin
from penstock.server.access.verified import Verified

THREADS = 2
"""Argon2 runs at a time, 64 MiB each."""
MOST_WAITING = 64
"""Argon2 runs that are begun or wait; further ones are refused at once."""
NOBODY = -1
"""The generation of users who are not there."""
PAIR_ALLOWANCE, ADDRESS_ALLOWANCE, USER_ALLOWANCE = 5, 20, 20
"""Failures before somebody has to wait."""


class Credentials(Struct, frozen=True):
    """What a client says of itself. `secret` is a password or a token; `common_name` that of its verified TLS
    certificate."""

    user: str
    secret: str
    common_name: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ***, {self.common_name!r})"


class Refused(Exception):
    """Why, in full, which is for the log. `told` is what the client may hear of it."""

    def __init__(self, reason: str, told: str = "") -> None:
        super().__init__(reason)
        self.told = told


class Gatekeeper:
    """Lets clients in. Its methods belong to one event loop."""

    def __init__(
        self, book: Book, *, clock: Clock | None = None, passwords: Passwords | None = None, threads: int = THREADS
    ) -> None:
        """Raises `ConfigError` where argon2 is not installed."""
        self._book = book
        self._clock: Clock = clock or SystemClock()
        self._passwords = passwords or Passwords()
        self._pool = ThreadPoolExecutor(threads, "penstock-password")
        self._verified = Verified()
        self._runs: dict[bytes, asyncio.Task[bool]] = {}
        self._pairs = Throttle(self._clock, PAIR_ALLOWANCE)
        self._addresses = Throttle(self._clock, ADDRESS_ALLOWANCE)
        self._users = Throttle(self._clock, USER_ALLOWANCE)

    async def sign_in(self, credentials: Credentials, address: str, namespace: str) -> Identity:
        """The client at `address` (a host, without the port), if it is who it says and has anything to do in
        `namespace`; the empty one is `/`.

        Raises `AccessRefused`, which does not say whether there is such a user or namespace. The reason is logged.
        """
        namespace = namespace or DEFAULT_NAMESPACE
        self._book.refresh()
        try:
            identity = await self._identify(credentials, address)
            self._check_namespace(identity, namespace)
        except Refused as refused:
            user, place = credentials.user[:MAX_SHOWN], namespace[:MAX_SHOWN]
            log.warning("refused %s: user %r, namespace %r: %s", address, user, place, refused)
            raise AccessRefused(refused.told or _unspecific(user, place)) from None
        log.debug("signed in %s: user %r, namespace %r", address, identity.user, namespace)
        return identity

    def close(self) -> None:
        """Sign-ins that have begun fail. May be called twice."""
        for run in self._runs.values():
            run.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _identify(self, credentials: Credentials, address: str) -> Identity:
        user, secret = credentials.user, credentials.secret
        if not 0 < len(user) <= MAX_NAME or len(secret) > MAX_PASSWORD or len(encoded(secret)) > MAX_PASSWORD:
            raise Refused(f"the user's name has {len(user):,} characters, the secret {len(secret):,}")
        if credentials.common_name is not None and not secret:
            return self._by_certificate(credentials, address)
        token = tokens.parse(secret)
        if token:
            return self._by_token(user, address, *token)
        if user == BOOTSTRAP:
            return self._by_one_time(secret, address)
        return await self._by_password(user, secret, address)

    def _by_certificate(self, credentials: Credentials, address: str) -> Identity:
        user, name = credentials.user, credentials.common_name
        if name != user:
            raise Refused(f"the certificate is {name!r}'s, and there is no password")
        if user not in self._book.snapshot.users:
            raise Refused("the certificate is right, but there is no such user")
        return Identity(self._book, user, ByCertificate(), address)

    # What is random cannot be guessed: if it is right, it is let in however often others have failed.

    def _by_token(self, user: str, address: str, token_id: str, secret: str) -> Identity:
        token = self._book.snapshot.tokens.get(token_id)
        right = tokens.same(secret, token.digest if token else b"")
        if token is None or not right or token.user != user:
            why = "is not known" if token is None else "has another secret" if not right else f"is {token.user!r}'s"
            raise self._wrong(user, address, f"the token pst_{token_id} {why}")
        self._check_time(f"the token pst_{token_id}", token.expires, "create another one with penstock tokens create")
        self._pairs.forgive((origin(address), user))
        return Identity(self._book, user, ByToken(token_id), address, token.expires)

    def _by_one_time(self, secret: str, address: str) -> Identity:
        kept = self._book.snapshot.one_time
        if not tokens.same(secret, kept.digest if kept else b"") or kept is None:
            why = "that is not the one-time credential" if kept else "there is no one-time credential any more"
            raise self._wrong(BOOTSTRAP, address, why)
        self._check_time("the one-time credential", kept.expires, "restart the broker, which prints another one")
        self._pairs.forgive((origin(address), BOOTSTRAP))
        return Identity(self._book, BOOTSTRAP, ByOneTime(kept.digest), address, kept.expires)

    def _check_time(self, what: str, expires: float, remedy: str) -> None:
        """Only told to who knows the secret."""
        if self._clock.time() >= expires:
            moment = datetime.fromtimestamp(expires, UTC)
            expired = f"{what} expired on {moment:%Y-%m-%d %H:%M} UTC"
            raise Refused(expired, f"{expired}: {remedy}")

    def _wrong(self, user: str, address: str, reason: str) -> Refused:
        self._check_throttles(user, address, False)
        self._failed(user, address, self._pairs.charge((origin(address), user)))
        return Refused(reason)

    async def _by_password(self, user: str, secret: str, address: str) -> Identity:
        account = self._book.snapshot.users.get(user)
        generation = account.generation if account else NOBODY
        known_here = self._verified.knows(generation, user, secret, address)
        self._check_throttles(user, address, known_here)
        if not known_here and not self._verified.knows(generation, user, secret):
            await self._run(user, account, secret, address)
            self._verified.learn(generation, user, secret)
        self._verified.learn(generation, user, secret, address)
        self._pairs.forgive((origin(address), user))
        return Identity(self._book, user, ByPassword(generation), address)

    async def _run(self, user: str, account: Account | None, secret: str, address: str) -> None:
        """Argon2, once for all who come with the same password at the same time."""
        digest = self._verified.digest(user, secret, str(account and account.generation))
        run = self._runs.get(digest)
        if run is None:
            if len(self._runs) >= MOST_WAITING:
                raise Refused("too many passwords are being verified", "too many clients sign in: try again in 1 s")
            # Charged before it is known, or guesses made at the same time would all be free.
            within = self._pairs.charge((origin(address), user))
            run = self._runs[digest] = asyncio.create_task(
                self._verify(user, account.password if account else None, secret)
            )
            run.add_done_callback(lambda _: self._runs.pop(digest, None))
            run.add_done_callback(lambda ended: self._ended(ended, user, address, within))
        await asyncio.wait([run])  # who started it may go away, the others still wait for it
        if run.cancelled():
            raise Refused("the broker stops")
        if not run.result():
            if account is None:
                raise Refused("there is no such user")
            raise Refused("the password is wrong" if account.password else "it signs in without a password")

    async def _verify(self, user: str, kept: str | None, secret: str) -> bool:
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._pool, self._passwords.verify, kept, secret)
        if right and kept is not None:
            await loop.run_in_executor(self._pool, self._renew, user, kept, secret)
        return right

    def _renew(self, user: str, kept: str, secret: str) -> None:
        try:
            renewed = self._passwords.renewed(kept, secret)
            if renewed is not None:
                self._book.renew_hash(user, kept, renewed)
        except PenstockError as error:  # the disk may be full; the old hash is as good as it was
            log.warning("the hash of %r could not be renewed: %s", user, error)

    def _ended(self, run: asyncio.Task[bool], user: str, address: str, within: bool) -> None:
        if run.cancelled() or run.exception():
            return
        if run.result():
            self._users.forgive(user)
        else:
            self._failed(user, address, within)

    def _failed(self, user: str, address: str, within: bool) -> None:
        """One client that goes on failing has only itself to wait for: its address and its user are charged while it is
        within its own allowance."""
        if within:
            self._addresses.charge(origin(address))
            self._users.charge(user)

    def _check_throttles(self, user: str, address: str, known_here: bool) -> None:
        """`known_here`: this very password was right from this address, which others who guess do not spoil."""
        place = origin(address)
        wait = max(self._pairs.wait((place, user)), self._addresses.wait(place))
        if not known_here:
            wait = max(wait, self._users.wait(user))
        if wait:
            raise Refused("too many failures before", f"too many failed sign-ins: try again in {max(1, round(wait))} s")

    def _check_namespace(self, identity: Identity, namespace: str) -> None:
        account = identity.account
        if account is None:
            raise Refused("the user was changed while it signed in")
        if namespace not in self._book.snapshot.namespaces:
            raise Refused("there is no such namespace")
        if not account.tags and not account.rights.reach(namespace):
            raise Refused("it has no permission there")


def _unspecific(user: str, namespace: str) -> str:
    return (
        f"access refused for user {user!r} in namespace {namespace!r}: the name, the secret or the rights are not what "
        "is needed; who runs the broker finds in its log which"
    )
