"""The file behind the book: how it is opened, and how a snapshot is read from it."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import stat
from collections.abc import Iterator
from typing import Any, Protocol

import apsw

from penstock.engines.sqlite.database import SAFE_SQLITE
from penstock.engines.sqlite.faults import translate
from penstock.engines.sqlite.files import check_header, check_place
from penstock.errors import PenstockError, StoreError
from penstock.server.access.accounts import Account, OneTime, Snapshot, Token
from penstock.server.access.rights import DEFAULT_NAMESPACE, Permission, Rights

FILE = "access.db"
APPLICATION_ID = 0x50454E41
"""`PENA`, in the header of the file."""
SCHEMA = 1
BUSY = 5_000
"""Milliseconds to wait for another process that changes the file."""


class Rows(Protocol):
    """The part of apsw's `execute` that is used; what a row holds is the statement's business."""

    def __call__(self, statement: str, /) -> Iterator[Any]: ...


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """SQLite's errors become ours."""
    try:
        yield
    except PenstockError:
        raise
    except (apsw.Error, OSError) as error:
        raise translate(error, path) from error


def open_database(path: str) -> apsw.Connection:
    """A connection to the file, which is made if it is not there. Raises `StoreError`."""
    check_place(path)
    check_header(path)
    with reading(path):
        _keep_private(path)
        connection = apsw.Connection(path)
        try:
            connection.set_busy_timeout(BUSY)
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _keep_private(path: str) -> None:
    """The owner's only, before SQLite makes a log and an index of the same mode."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        found, folder = os.fstat(file), os.stat(os.path.dirname(path))
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(file, 0o600)
        if os.geteuid() == 0 and found.st_uid != folder.st_uid:
            os.fchown(file, folder.st_uid, folder.st_gid)  # root may look after a broker that is not root
    finally:
        os.close(file)


def _prepare(connection: apsw.Connection, path: str) -> None:
    if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < SAFE_SQLITE:
        raise StoreError(f"SQLite {apsw.sqlite_lib_version()} can corrupt its files: pip install -U apsw")
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("foreign_keys", True)
    connection.pragma("secure_delete", True)  # a hash that was deleted is not to be found in the file
    connection.execute("BEGIN IMMEDIATE")  # two processes may come at the same time
    version, application = connection.pragma("user_version"), connection.pragma("application_id")
    if version > SCHEMA:
        raise StoreError(f"{path} was written by a newer penstock (schema {version}, this one knows {SCHEMA}): upgrade")
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").get:
        connection.execute(importlib.resources.files(__package__).joinpath("schema.sql").read_text("utf-8"))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA)
    elif application != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite database of another program: choose another folder")
    connection.execute("COMMIT")


def snapshot_of(connection: apsw.Connection, before: Snapshot) -> Snapshot:
    """What the file says, to be called in a transaction. What has not changed is taken from `before`, with all that it
    has learnt."""
    rows: Rows = connection.execute
    permissions: dict[str, list[Permission]] = {}
    for user, *fields in rows("SELECT user, namespace, configure, write, read FROM permission"):
        permissions.setdefault(user, []).append(Permission(*fields))
    users = {}
    for name, password, generation, tags in rows("SELECT name, password, generation, tags FROM user"):
        rights = Rights(permissions.get(name, ()))
        account = Account(name, password, generation, frozenset(tags.split()), rights)
        known = before.users.get(name)
        users[name] = known if known == account else account
    tokens = {row[0]: Token(*row) for row in rows("SELECT id, user, digest, created, expires FROM token")}
    namespaces = frozenset(row[0] for row in rows("SELECT name FROM namespace")) | {DEFAULT_NAMESPACE}
    one_time = [OneTime(*row) for row in rows("SELECT digest, expires FROM one_time")]
    return Snapshot(users, tokens, namespaces, one_time[0] if one_time else None)
