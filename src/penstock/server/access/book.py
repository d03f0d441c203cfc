"""The access database: who is known, and what was granted. What is asked is a snapshot in memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw
from msgspec.structs import astuple

from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError
from penstock.queue import check_name
from penstock.server.access.accounts import BOOTSTRAP, Snapshot, Token
from penstock.server.access.database import FILE, open_database, reading, snapshot_of
from penstock.server.access.rights import (
    DEFAULT_NAMESPACE,
    EVERYWHERE,
    Permission,
    check_permission,
    check_tags,
)
from penstock.server.access.tokens import DAY, check_life, digest_of, mint
from penstock.spelling import hint

T = TypeVar("T")
BOOTSTRAP_LIFE = DAY
MAX_USERS, MAX_NAMESPACES, MAX_TOKENS = 10_000, 1_000, 100
"""Users and namespaces of a broker, tokens of a user."""


class Credential(NamedTuple):
    """What a client signs in with."""

    user: str
    secret: str


class Book:
    """The access database of one data folder. Thread-safe. Changes are durable when a method returns, and count at
    once, here and after `refresh` in other processes. Methods raise `ConfigError` for what may not be, and `StoreError`
    when the file cannot be used."""

    def __init__(self, folder: str | os.PathLike[str], clock: Clock | None = None) -> None:
        """`folder` must exist. The file is made if it is not there, for its owner only."""
        self.path = str(Path(folder, FILE).absolute())
        self.snapshot = Snapshot()
        """What was granted, as of now. Ask it anew each time, and keep none."""
        self.clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._connection = open_database(self.path)
        self._version = -1
        self.refresh()

    def refresh(self) -> bool:
        """Read again if another process has changed the file; whether it has. Costs some microseconds if not, and never
        waits: it may be called on an event loop."""
        if not self._lock.acquire(blocking=False):
            return False  # another thread changes the file, and reads it, too; it may wait for the disk
        try:
            with reading(self.path):
                version = self._connection.pragma("data_version")
                if version == self._version:
                    return False
                with self._connection:
                    self.snapshot = snapshot_of(self._connection, self.snapshot)
                self._version = version
                return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._connection.close()

    # -- users

    def add_user(self, name: str, password: str | None, tags: Iterable[str] = ()) -> None:
        """`password` is a hash of `Passwords`, `None` for a user who signs in by token or certificate only."""
        check_name("user", name)
        if name == BOOTSTRAP:
            raise ConfigError(f"{BOOTSTRAP!r} is the user of the one-time credential: choose another name")
        row = (name, password, secrets.randbits(62), " ".join(sorted(check_tags(tags))))

        def work(now: Snapshot) -> None:
            if name in now.users:
                raise ConfigError(f"there is a user {name!r} already")
            _check_room("users", len(now.users), MAX_USERS)
            self._execute("INSERT INTO user VALUES (?, ?, ?, ?)", row)

        self._change(work)

    def delete_user(self, name: str) -> None:
        """The permissions and tokens go with it."""
        self._change_user(name, "DELETE FROM user WHERE name = ?")

    def set_password(self, name: str, password: str | None) -> None:
        """Who signed in with the former one is signed out. `password` as for `add_user`."""
        self._change_user(
            name, "UPDATE user SET password = ?, generation = ? WHERE name = ?", password, secrets.randbits(62)
        )

    def renew_hash(self, name: str, former: str, renewed: str) -> None:
        """Another hash of the same password. Does nothing if the password was changed meanwhile."""
        self._change(
            lambda now: self._execute(
                "UPDATE user SET password = ? WHERE name = ? AND password = ?", (renewed, name, former)
            )
        )

    def tag_user(self, name: str, tags: Iterable[str]) -> None:
        """These tags, and no others."""
        self._change_user(name, "UPDATE user SET tags = ? WHERE name = ?", " ".join(sorted(check_tags(tags))))

    def permit(self, user: str, permission: Permission) -> None:
        """Takes the place of what the user had in that namespace."""
        check_permission(permission)

        def work(now: Snapshot) -> None:
            _check_known("user", user, now.users)
            if permission.namespace != EVERYWHERE:
                _check_known("namespace", permission.namespace, now.namespaces)
            self._execute("REPLACE INTO permission VALUES (?, ?, ?, ?, ?)", (user, *astuple(permission)))

        self._change(work)

    def forbid(self, user: str, namespace: str) -> None:
        """Take back what `permit` gave."""

        def work(now: Snapshot) -> None:
            _check_known("user", user, now.users)
            given = [one.namespace for one in now.users[user].rights.permissions]
            if namespace not in given:
                raise ConfigError(f"user {user!r} has no permission in namespace {namespace!r}{hint(namespace, given)}")
            self._execute("DELETE FROM permission WHERE user = ? AND namespace = ?", (user, namespace))

        self._change(work)

    # -- tokens

    def add_token(self, user: str, life: float) -> tuple[Token, str]:
        """A new token, which lives for so many seconds, and its text, to be shown once: only a hash is kept. Tokens of
        the same user that have expired go, to make room."""
        moment = self.clock.time()
        token_id, text, digest = mint()
        token = Token(token_id, user, digest, moment, moment + check_life(life))

        def work(now: Snapshot) -> None:
            _check_known("user", user, now.users)
            self._execute("DELETE FROM token WHERE user = ? AND expires <= ?", (user, moment))
            alive = [one for one in now.tokens_of(user) if one.expires > moment]
            _check_room(f"tokens of {user!r}", len(alive), MAX_TOKENS)
            self._execute("INSERT INTO token VALUES (?, ?, ?, ?, ?)", astuple(token))

        self._change(work)
        return token, text

    def revoke_token(self, token_id: str) -> None:
        def work(now: Snapshot) -> None:
            _check_known("token", token_id, now.tokens)
            self._execute("DELETE FROM token WHERE id = ?", (token_id,))

        self._change(work)

    # -- namespaces

    def add_namespace(self, name: str) -> None:
        check_name("namespace", name)
        if name == EVERYWHERE:
            raise ConfigError(f"{EVERYWHERE!r} means all namespaces: choose another name")

        def work(now: Snapshot) -> None:
            if name in now.namespaces:
                raise ConfigError(f"there is a namespace {name!r} already")
            _check_room("namespaces", len(now.namespaces), MAX_NAMESPACES)
            self._execute("INSERT INTO namespace VALUES (?)", (name,))

        self._change(work)

    def delete_namespace(self, name: str) -> None:
        """Nobody is let into it any more, and permissions for it go. Its queues stay in the store, and are there again
        if the namespace is."""
        if name == DEFAULT_NAMESPACE:
            raise ConfigError(f"namespace {DEFAULT_NAMESPACE!r} is always there; forbid it to users instead")

        def work(now: Snapshot) -> None:
            _check_known("namespace", name, now.namespaces)
            self._execute("DELETE FROM permission WHERE namespace = ?", (name,))
            self._execute("DELETE FROM namespace WHERE name = ?", (name,))

        self._change(work)

    # -- the first administrator

    def bootstrap(self) -> Credential | None:
        """A new one-time credential, in place of the one before; `None` when there is an administrator with a password.

        It is valid for a day, and gone as soon as there is such an administrator. To be shown once: only its hash is
        kept.
        """
        secret = secrets.token_urlsafe(32)
        kept = (digest_of(secret), self.clock.time() + BOOTSTRAP_LIFE)

        def work(now: Snapshot) -> bool:
            if not now.owned:
                self._execute("REPLACE INTO one_time VALUES (1, ?, ?)", kept)
            return not now.owned

        return Credential(BOOTSTRAP, secret) if self._change(work) else None

    def _change_user(self, name: str, statement: str, *values: object) -> None:
        def work(now: Snapshot) -> None:
            _check_known("user", name, now.users)
            self._execute(statement, (*values, name))

        self._change(work)

    def _change(self, work: Callable[[Snapshot], T]) -> T:
        """`work` in a transaction, given what is in the file by then; then the snapshot is what it made of it."""
        with self._lock, reading(self.path):
            self._execute("BEGIN IMMEDIATE")
            try:
                same = self._connection.pragma("data_version") == self._version
                result = work(self.snapshot if same else snapshot_of(self._connection, self.snapshot))
                after = snapshot_of(self._connection, self.snapshot)
                if after.owned and after.one_time:
                    self._execute("DELETE FROM one_time")
                    after = snapshot_of(self._connection, after)
                self._execute("COMMIT")
            except BaseException:
                with contextlib.suppress(apsw.Error):  # what went wrong first is what counts
                    self._execute("ROLLBACK")
                raise
            self.snapshot = after
        return result

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self._connection.execute(statement, values)


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ConfigError(f"there is no {what} {name!r}{hint(name, known)}")


def _check_room(what: str, number: int, most: int) -> None:
    if number >= most:
        raise ConfigError(f"there are {number:,} {what}, and may be {most:,}: delete some")
