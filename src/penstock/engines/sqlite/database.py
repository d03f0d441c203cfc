"""One open database: a connection that writes behind the gate, one that reads, and durability."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.resources
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import apsw

from penstock.engines.sqlite.board import Board
from penstock.engines.sqlite.faults import translate
from penstock.engines.sqlite.files import APPLICATION_ID, check_header, check_place
from penstock.engines.sqlite.gate import Gate, SoleGate
from penstock.engines.sqlite.owning import Owner
from penstock.errors import BrokerUnavailable, OutcomeUnknown, StoreError

T = TypeVar("T")


class Rows(Protocol):
    """The part of apsw's cursor that is used; what a row holds is the statement's business."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


class Execute(Protocol):
    def __call__(self, statements: str, bindings: Sequence[Any] = ..., /) -> Rows: ...


SCHEMA = 5
SAFE_SQLITE = (3, 51, 3)
"""Older versions can corrupt a WAL database when a checkpoint races a commit."""
BUSY = 5_000
"""Milliseconds to wait for a foreign program (a shell, a backup) that locks the file."""
PAGE = 2_048
"""Bytes of a page: half of SQLite's default makes a small commit a fifth cheaper, and costs a drain nothing."""
FORK_PATIENCE = 30.0
"""Seconds for which a fork waits for transactions of other threads."""
CHECKPOINT_PAGES = 2_000
"""The WAL is copied back at this size, inside a commit and so under the gate."""

Sync = Callable[[int], None]


class Database:
    """`write(work)` runs `work` in a write transaction, `read(work)` in a snapshot. Both may be called from any
    thread."""

    def __init__(
        self, path: str, *, durable: bool, sole: bool = False, sync: Sync = os.fdatasync, vfs: str | None = None
    ) -> None:
        self.path = path
        self.durable = durable
        self.sole = sole
        self.traces = True
        """`revoked` and `progress` may have rows. Where nobody else writes it is known when they have none."""
        self._sync = sync
        self._mutex = threading.Lock()
        self._read_mutex = threading.Lock()
        self._broken: BaseException | None = None
        self._closed = False
        self.rolled_back: Callable[[], None] = lambda: None
        try:
            self._open(vfs, sole)
        except BaseException as error:
            raise translate(error, path) from error

    def _open(self, vfs: str | None, sole: bool) -> None:
        if tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) < SAFE_SQLITE:
            raise StoreError(f"SQLite {apsw.sqlite_lib_version()} can corrupt its files: pip install -U apsw")
        check_place(self.path)
        check_header(self.path)
        self.run_folder = self.path + "-run"
        os.makedirs(self.run_folder, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # arguments and results are nobody else's business
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.ExitStack() as undo:  # a place that is never given back would be missing for ever
            self.owner = Owner(self.run_folder, self.path, sole=sole)
            undo.callback(self.owner.close)
            self.board = Board(os.path.join(self.run_folder, "board"))
            undo.callback(self.board.close)
            self.gate: Gate | SoleGate = (
                SoleGate() if sole else Gate(os.path.join(self.run_folder, "write.lock"), self.board.place)
            )
            undo.callback(self.gate.close)
            self._open_connections(vfs, undo)
            undo.pop_all()

    def _open_connections(self, vfs: str | None, undo: contextlib.ExitStack) -> None:
        self.gate.acquire(10.0)
        try:
            self._writer = self._connect(vfs)
            undo.callback(self._writer.close)
            self._prepare()
            # A copy (VACUUM INTO) comes without a log, and only a write makes SQLite create it.
            self._writer.execute("BEGIN IMMEDIATE; UPDATE meta SET value = value WHERE name = 'turn'; COMMIT")
        finally:
            self.gate.release()
        self._reader = self._connect(vfs)
        undo.callback(self._reader.close)
        self.execute: Execute = self._writer.execute
        # One cursor, kept: cheaper than `execute`, which makes one each time. Its next statement ends the one before.
        self.hot: Execute = self._writer.cursor().execute
        self.executemany = self._writer.executemany
        self.changes = self._writer.changes
        self.all_changes = self._writer.total_changes
        self.query: Execute = self._reader.execute
        self._wal = self._open_wal() if self.durable else -1
        self._identity = self._find_identity()
        query: Execute = self._reader.execute
        self.secret: bytes = query("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]

    def _connect(self, vfs: str | None) -> apsw.Connection:
        connection = apsw.Connection(self.path, vfs=vfs) if vfs else apsw.Connection(self.path)
        connection.set_busy_timeout(BUSY)
        # Plans that do not hang on parameters: what looks for work was prepared anew each time, since its parameter was
        # compared with the condition of the partial index (a third of what an idle broker did in SQLite).
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        keep = ctypes.c_int(1)  # the last close must not delete the WAL under another process's descriptor
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        return connection

    def _prepare(self) -> None:
        execute: Execute = self._writer.execute
        application = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        tables = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application or tables):
            raise StoreError(f"{self.path} is an SQLite database of another program: choose another file")
        if version > SCHEMA:
            raise StoreError(
                f"{self.path} was written by a newer penstock (schema {version}, this one knows {SCHEMA}): upgrade"
            )
        execute(f"PRAGMA page_size = {PAGE}")
        execute("PRAGMA journal_mode = wal")
        execute("PRAGMA synchronous = normal")
        execute("PRAGMA secure_delete = 0")
        execute("PRAGMA cache_size = -32768")
        execute("PRAGMA temp_store = memory")
        execute(f"PRAGMA journal_size_limit = {64 << 20}")
        self._writer.wal_autocheckpoint(CHECKPOINT_PAGES)
        if version < SCHEMA:
            self._migrate(version)

    def _migrate(self, version: int) -> None:
        """Bring the schema up, one numbered file after the other, in one durable transaction."""
        execute = self._writer.execute
        execute("PRAGMA synchronous = full")
        execute("BEGIN IMMEDIATE")
        for number in range(version + 1, SCHEMA + 1):
            script = importlib.resources.files(__package__).joinpath(f"migrations/{number:04}.sql").read_text()
            execute(script)
        execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_bytes(32),))
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {SCHEMA}")
        execute("COMMIT")
        execute("PRAGMA synchronous = normal")
        folder = os.open(os.path.dirname(self.path), os.O_RDONLY)
        try:
            os.fsync(folder)  # the names of the database and its WAL must survive as well
        finally:
            os.close(folder)

    def _open_wal(self) -> int:
        return os.open(self.path + "-wal", os.O_RDONLY | os.O_CLOEXEC)

    def write(self, work: Callable[[], T], *, timeout: float = 30.0, heavy: bool = True) -> T:
        """Run `work` in a transaction and commit it, in at most `timeout` seconds of waiting for the lock.

        Nothing has happened when this raises. What is committed is not safe from a power cut before `sync` returned.
        `heavy=False` is for what is short and somebody waits for: it goes first.
        """
        if self._broken is not None:
            if isinstance(self._broken, StoreError):
                raise StoreError(str(self._broken)) from self._broken
            raise StoreError(f"{self.path}: an earlier sync failed, restart this process: {self._broken}")
        started = time.monotonic()
        if not self._mutex.acquire(timeout=timeout):
            raise BrokerUnavailable(
                f"{self.path}: another thread of this process held the database for {timeout:.3g} s"
            )
        try:
            self.check_open()
            self.gate.acquire(timeout - (time.monotonic() - started), heavy=heavy)
            try:
                result = self._transact(work) if timeout > 0 else self._transact_at_once(work)
            finally:
                self.gate.release()
        except BaseException as error:
            ours = translate(error, self.path)
            if ours is error:
                raise
            raise ours from error
        finally:
            self._mutex.release()
        return result

    @property
    def is_closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailable(f"{self.path}: it was closed meanwhile; nothing was done")

    def _transact_at_once(self, work: Callable[[], T]) -> T:
        """Without waiting for a program that has locked the file beside our gate."""
        self._writer.set_busy_timeout(0)
        try:
            return self._transact(work)
        finally:
            self._writer.set_busy_timeout(BUSY)

    def _transact(self, work: Callable[[], T]) -> T:
        execute = self.execute
        try:
            execute("BEGIN IMMEDIATE")
            result = work()
            execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                execute("ROLLBACK")
            self.traces = True
            self.rolled_back()
            raise
        return result

    def sync(self) -> None:
        """Make what was committed survive a power cut, if this database is to. Outside of the lock, so that others
        commit meanwhile and share the sync. Raises `OutcomeUnknown`: it is committed, but may not survive. So it is
        from the first failure on, since the kernel may have dropped the pages, and tells of that only once.
        """
        if not self.durable:
            return
        try:
            self._sync(self._wal)
            mine, now = os.fstat(self._wal), os.stat(self.path + "-wal")
            if (mine.st_ino, mine.st_dev) != (now.st_ino, now.st_dev):
                self.check_in_place()
                # Somebody deleted it and SQLite made a new one: sync that. The old descriptor stays open, because
                # another thread may be about to sync it, and a number that is used again would be another file.
                self._wal = self._open_wal()
                self._sync(self._wal)
        except OSError as error:
            self._broken = error
        broken = self._broken
        if broken is not None:
            raise OutcomeUnknown(f"{self.path}: syncing failed ({broken}): it may not survive a power cut") from broken

    def check_in_place(self) -> None:
        """Raise `StoreError`, now and at each write from here on, when the file was deleted or replaced: what this
        process writes into the old one, nobody finds."""
        if self._find_identity() != self._identity:
            self._broken = StoreError(
                f"{self.path} was deleted or replaced while it was open: restart this process; what it wrote since is "
                "not in the file of that name"
            )
            raise StoreError(str(self._broken))

    def _find_identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_dev

    def read(self, work: Callable[[], T]) -> T:
        """Run `work`, which uses `query`, on one consistent snapshot."""
        with self._read_mutex:
            self.check_open()
            try:
                try:
                    self.query("BEGIN")
                    return work()
                finally:
                    if self._reader.in_transaction:
                        self.query("COMMIT")
            except BaseException as error:
                ours = translate(error, self.path)
                if ours is error:
                    raise
                raise ours from error

    def close(self) -> None:
        """Close both connections, under the gate: the last close checkpoints."""
        with self._mutex, self._read_mutex:
            self._closed = True
            self.gate.acquire(10.0)
            try:
                self._reader.close()
                self._writer.close()
            finally:
                self.gate.release()
            if self._wal >= 0:
                os.close(self._wal)
            self.gate.close()
            self.board.close()
            self.owner.close()

    def hold_for_fork(self) -> bool:
        """Wait until no transaction runs in this process; then none does in what is forked. `False`: it took too
        long."""
        if not self._mutex.acquire(timeout=FORK_PATIENCE):
            return False
        if not self._read_mutex.acquire(timeout=FORK_PATIENCE):
            self._mutex.release()
            return False
        return True

    def release_after_fork(self) -> None:
        self._read_mutex.release()
        self._mutex.release()

    def close_after_fork(self) -> None:
        """In a forked child: give up what is the parent's, after `hold_for_fork`.

        SQLite keeps one record of locks for each file and process. A child that opened the file while it still has the
        parent's connections would take the locks in that record for its own, and hold none: others could then delete
        the WAL under it. POSIX locks are not inherited, so closing here takes none from the parent.
        """
        self._reader.close()
        self._writer.close()
        if self._wal >= 0:
            os.close(self._wal)
        self.gate.close()
        self.board.close()
        self.owner.close()
