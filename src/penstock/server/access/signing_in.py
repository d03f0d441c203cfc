"""Signing in: by token, by the certificate of the connection, or by password, in a time and with an answer that do not
tell who is known."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

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
    Proof,
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
    """What a client says of itself. `secret` is a password or a token, of which an empty `user` is whoever it belongs
    to; `common_name` that of its verified TLS certificate."""

    user: str
    secret: str
    common_name: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ***, {self.common_name!r})"


class Client(NamedTuple):
    """Who asks to be let in, and what its failures are charged to."""

    user: str
    address: str
    namespace: str
    origin: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.origin, self.user


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
        client = Client(credentials.user, address, namespace or DEFAULT_NAMESPACE, origin(address))
        self._book.refresh()
        try:
            identity = await self._identify(client, credentials.secret, credentials.common_name)
            self._check_namespace(identity)
        except Refused as refused:
            user, place = client.user[:MAX_SHOWN], client.namespace[:MAX_SHOWN]
            log.warning("refused %s: user %r, namespace %r: %s", address, user, place, refused)
            raise AccessRefused(refused.told or _unspecific(user, place)) from None
        log.debug("signed in %s: user %r, namespace %r", address, client.user, client.namespace)
        return identity

    def close(self) -> None:
        """Sign-ins that have begun fail. May be called twice."""
        for run in self._runs.values():
            run.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _identify(self, client: Client, secret: str, common_name: str | None) -> Identity:
        token = tokens.parse(secret)
        if (
            not (token or client.user)
            or len(client.user) > MAX_NAME
            or len(secret) > MAX_PASSWORD
            or len(encoded(secret)) > MAX_PASSWORD
        ):
            raise Refused(f"the user's name has {len(client.user):,} characters, the secret {len(secret):,}")
        if common_name is not None and not secret:
            return self._by_certificate(client, common_name)
        if token:
            return self._by_token(client, *token)
        if client.user == BOOTSTRAP:
            return self._by_one_time(client, secret)
        return await self._by_password(client, secret)

    def _by_certificate(self, client: Client, name: str) -> Identity:
        if name != client.user:
            raise Refused(f"the certificate is {name[:MAX_SHOWN]!r}'s, and there is no password")
        if name not in self._book.snapshot.users:
            raise Refused("the certificate is right, but there is no such user")
        return self._identity(client, ByCertificate())

    # What is random cannot be guessed: if it is right, it is let in however often others have failed.

    def _by_token(self, client: Client, token_id: str, secret: str) -> Identity:
        token = self._book.snapshot.tokens.get(token_id)
        right = tokens.same(secret, token.digest if token else b"")
        if token is None or not right or client.user not in ("", token.user):
            why = "is not known" if token is None else "has another secret" if not right else f"is {token.user!r}'s"
            raise self._wrong(client, f"the token pst_{token_id} {why}")
        self._check_time(f"the token pst_{token_id}", token.expires, "create another one with penstock tokens create")
        self._pairs.forgive(client.pair)
        return self._identity(client._replace(user=token.user), ByToken(token_id), token.expires)

    def _by_one_time(self, client: Client, secret: str) -> Identity:
        kept = self._book.snapshot.one_time
        if not tokens.same(secret, kept.digest if kept else b"") or kept is None:
            why = "that is not the one-time credential" if kept else "there is no one-time credential any more"
            raise self._wrong(client, why)
        self._check_time("the one-time credential", kept.expires, "restart the broker, which prints another one")
        self._pairs.forgive(client.pair)
        return self._identity(client, ByOneTime(kept.digest), kept.expires)

    def _check_time(self, what: str, expires: float, remedy: str) -> None:
        """Only told to who knows the secret."""
        if self._clock.time() >= expires:
            moment = datetime.fromtimestamp(expires, UTC)
            expired = f"{what} expired on {moment:%Y-%m-%d %H:%M} UTC"
            raise Refused(expired, f"{expired}: {remedy}")

    def _wrong(self, client: Client, reason: str) -> Refused:
        self._check_throttles(client, False)
        self._failed(client, self._pairs.charge(client.pair))
        return Refused(reason)

    async def _by_password(self, client: Client, secret: str) -> Identity:
        user, place = client.user, client.origin
        account = self._book.snapshot.users.get(user)
        generation = account.generation if account else NOBODY
        known_here = self._verified.knows(generation, user, secret, place)
        self._check_throttles(client, known_here)
        if not known_here and not self._verified.knows(generation, user, secret):
            await self._run(client, account, secret)
            self._verified.learn(generation, user, secret)
        self._verified.learn(generation, user, secret, place)
        self._pairs.forgive(client.pair)
        return self._identity(client, ByPassword(generation))

    async def _run(self, client: Client, account: Account | None, secret: str) -> None:
        """Argon2, once for all who come with the same password at the same time."""
        digest = self._verified.digest(client.user, secret, str(account and account.generation))
        run = self._runs.get(digest)
        if run is None:
            if len(self._runs) >= MOST_WAITING:
                raise Refused("too many passwords are being verified", "too many clients sign in: try again in 1 s")
            # Charged before it is known, or guesses made at the same time would all be free.
            within = self._pairs.charge(client.pair)
            kept = account.password if account else None
            run = self._runs[digest] = asyncio.create_task(self._verify(client.user, kept, secret))
            run.add_done_callback(lambda _: self._runs.pop(digest, None))
            run.add_done_callback(lambda ended: self._ended(ended, client, within))
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

    def _ended(self, run: asyncio.Task[bool], client: Client, within: bool) -> None:
        if run.cancelled() or run.exception():
            return
        if run.result():
            self._users.forgive(client.user)
        else:
            self._failed(client, within)

    def _failed(self, client: Client, within: bool) -> None:
        """One client that goes on failing has only itself to wait for: its address and its user are charged while it is
        within its own allowance."""
        if within:
            self._addresses.charge(client.origin)
            self._users.charge(client.user)

    def _check_throttles(self, client: Client, known_here: bool) -> None:
        """`known_here`: this very password was right from this address, which others who guess do not spoil."""
        wait = max(self._pairs.wait(client.pair), self._addresses.wait(client.origin))
        if not known_here:
            wait = max(wait, self._users.wait(client.user))
        if wait:
            raise Refused("too many failures before", f"too many failed sign-ins: try again in {max(1, round(wait))} s")

    def _identity(self, client: Client, proof: Proof, expires: float | None = None) -> Identity:
        return Identity(self._book, client.user, proof, client.address, client.namespace, expires)

    def _check_namespace(self, identity: Identity) -> None:
        account = identity.account
        if account is None:
            raise Refused("the user was changed while it signed in")
        if identity.namespace not in self._book.snapshot.namespaces:
            raise Refused("there is no such namespace")
        if not account.tags and not account.rights.reach(identity.namespace):
            raise Refused("it has no permission there")


def _unspecific(user: str, namespace: str) -> str:
    return (
        f"access refused for user {user!r} in namespace {namespace!r}: the name, the secret or the rights are not what "
        "is needed; who runs the broker finds in its log which"
    )
