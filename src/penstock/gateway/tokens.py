"""Tokens in a file: hashed, each with its scopes and its end. The file is read again when it has changed."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec import Struct

from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError
from penstock.gateway.asking import Request
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import Caller, read_scopes
from penstock.gateway.seldom import Seldom
from penstock.queue import check_name
from penstock.server.access import tokens

log = logging.getLogger("penstock.gateway")
LOOK = 1.0
"""Seconds between two looks whether the file has changed."""
MAX_FILE = 16 << 20
DAY = 86_400.0
KEPT = 30 * DAY
"""How long an expired token stays in the file, so that its holder can be told."""
SOON = 3 * DAY


def moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


class Token(Struct, frozen=True, forbid_unknown_fields=True):
    """As it is kept: `digest` is of the secret, in hex; times are Unix times."""

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created: float
    expires: float


class _Known(Struct, frozen=True):
    digest: bytes
    expires: float
    caller: Caller


class TokenFile:
    """Lets in who has one of the file's tokens, as `Authorization: Bearer pst_…`. Thread-safe."""

    def __init__(self, path: Path | str, clock: Clock | None = None) -> None:
        """Raises `ConfigError` when the file cannot be used; one that is not there has no tokens."""
        self.path = Path(path)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._seldom = Seldom(self._clock)
        self._looked = -LOOK
        self._known: Mapping[str, _Known] = {}
        self._refresh()

    def __call__(self, request: Request) -> Caller:
        """Raises `Refused`: 401 tells nothing of what was wrong with a token, but for its end to who has the whole of
        it."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        given = tokens.parse(text.strip()) if kind.lower() == "bearer" else None
        self._look()
        if given is not None:
            token_id, secret = given
            known = self._known.get(token_id)
            # The same work for an id that is not there.
            right = tokens.same(secret, known.digest if known else b"")
            if right and known is not None:
                if self._clock.time() < known.expires:
                    return known.caller
                self._refuse_expired(token_id, known)
        raise Refused(
            401, "not-signed-in", "send a valid token as Authorization: Bearer …", {"www-authenticate": "Bearer"}
        )

    def _refuse_expired(self, token_id: str, known: _Known) -> NoReturn:
        name, end = known.caller.name, moment(known.expires)
        more = self._seldom.again(token_id)
        if more is not None:
            log.warning("the token of %r expired at %s; make another: penstock gateway token add%s", name, end, more)
        raise Refused(401, "expired", f"this token expired at {end}; ask for another", {"www-authenticate": "Bearer"})

    # -- its holder's side

    def summary(self) -> str:
        """Whom it lets in, and what is to be done soon."""
        found, now = self._read(), self._clock.time()
        live = [token for token in found if token.expires > now]
        if not live:
            why = "all have expired" if found else "there are none"
            return f"nobody by the tokens in {self.path}: {why}; penstock gateway token add"
        soon = [f"{one.name!r} until {moment(one.expires)}" for one in live if one.expires < now + SOON]
        who = f"{len(live)} token{'s' if len(live) > 1 else ''} in {self.path}"
        return f"{who}, of which some expire soon: {', '.join(soon[:5])}" if soon else who

    def add(self, name: str, scopes: Sequence[str], life: float = tokens.DEFAULT_LIFE) -> tuple[Token, str]:
        """A new token, and its text, which is nowhere else. Raises `ConfigError`."""
        check_name("token", name)
        if not scopes:
            raise ConfigError(
                "a token without a scope may do nothing: give --scope call:NAME, and read, revoke or inspect"
            )
        now, given = self._clock.time(), read_scopes(scopes)
        token_id, text, digest = tokens.mint()
        token = Token(token_id, name, digest.hex(), tuple(given.texts()), now, now + tokens.check_life(life))
        with self._changing():
            self._write([one for one in self._read() if one.expires > now - KEPT] + [token])
        return token, text

    def remove(self, token_id: str) -> Token:
        """Raises `ConfigError` when there is none of that id."""
        with self._changing():
            found = self._read()
            gone = [token for token in found if token.id == token_id]
            if not gone:
                raise ConfigError(
                    f"{self.path} has no token of the id {token_id[:40]!r}; see penstock gateway token list"
                )
            self._write([token for token in found if token.id != token_id])
        return gone[0]

    def all(self) -> list[Token]:
        return self._read()

    # -- the file

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        with self._lock:
            self._looked = now
            try:
                self._refresh()
            except ConfigError as error:
                log.error("%s; tokens stay as they were", error)

    def _refresh(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._known = {
            token.id: _Known(bytes.fromhex(token.digest), token.expires, Caller(token.name, read_scopes(token.scopes)))
            for token in self._read()
        }
        self._stamp = stamp

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"the tokens in {self.path} cannot be read: {error.strerror}") from error
        if found.st_mode & 0o022:
            raise ConfigError(f"others may write {self.path}, and so let themselves in: chmod 600 {self.path}")
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> list[Token]:
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"the tokens in {self.path} cannot be read: {error.strerror}") from error
        try:
            found = msgspec.json.decode(data, type=list[Token])
            for token in found:
                bytes.fromhex(token.digest)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(
                f"{self.path} is no file of tokens: {error}; make one: penstock gateway token add"
            ) from error
        return found

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Two commands at once must not lose each other's change."""
        try:
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the tokens in {self.path} cannot be changed: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, found: Sequence[Token]) -> None:
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(list(found)), indent=1) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise ConfigError(f"the tokens in {self.path} cannot be changed: {error.strerror}") from error
