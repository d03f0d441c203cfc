"""The embedded engine: the contracts' coroutines over the synchronous store. They never suspend, save to hand over a
publish."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.backend import Lost, Notify, Subscription, check_parts
from penstock.broker import Answer, Demand, Features, Key, Lease, Step
from penstock.delivery import Receipt, Settlement
from penstock.engines.sqlite.coordinating import SqliteCoordinator
from penstock.engines.sqlite.inspecting import SqliteInspect
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.registry import StartNotes
from penstock.engines.sqlite.request import PublishRequest, drive
from penstock.engines.sqlite.settings import Settings
from penstock.engines.sqlite.store import Neighbours, Store
from penstock.errors import StoreError
from penstock.message import Message
from penstock.outcome import Outcome, Parts, Progress, Report
from penstock.shedding import SHEDDING

if TYPE_CHECKING:
    from penstock.engines.sqlite.group import Group

T = TypeVar("T")

MAX_BATCH = 1_000
"""Messages of one publish: about a millisecond under the lock."""


def features(durability: str) -> Features:
    return Features(
        engine="sqlite",
        atomic_settle=True,
        max_batch=MAX_BATCH,
        effects=frozenset({"Publish", "Join", "ReleaseKey", "Put"}),
        guards=frozenset({"Unique", "Dedup", "Fence", "Limit"}),
        overflow=frozenset({"reject", *SHEDDING}),
        streams=True,
        durability=durability,
    )


class SqliteBroker:
    def __init__(self, engine: SqliteEngine, durability: str, notes: StartNotes) -> None:
        self._engine = engine
        self.record_start = notes.note
        self.features = features(durability)

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return await PublishRequest(batch, timeout)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return self._engine.store.follow_up(batch, timeout)

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        return self._engine.store.step(settle, want)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        return self._engine.store.extend(receipts, lease)

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        db = self._engine.store.db
        row = db.read(
            lambda: db.query(
                "SELECT depth FROM queue_stats WHERE namespace = ? AND name = ?", (namespace, queue)
            ).fetchone()
        )
        return row[0] if row else 0

    def public_id(self, key: Key) -> str:
        return key if isinstance(key, str) else self._engine.store.ids.make(key)

    def interrupt(self) -> None:
        self._engine.store.interrupt()


class SqliteBackend:
    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        store = self._engine.store

        def work(wake: Wake) -> list[bool]:
            first: dict[int, tuple[str, Outcome]] = {}
            answers = []
            for key, outcome in outcomes:
                row = key if isinstance(key, int) else store.row_to_store(key)
                fresh = row not in first and not store.has_result(row)
                if fresh:
                    first[row] = (outcome.task, outcome)
                answers.append(fresh)
            if first:
                store.results.add(first, "")
                wake.results = True
            return answers

        return store.change(work)

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        store = self._engine.store
        return store.db.read(lambda: store.lookup.reports(keys))

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        return self._engine.store.subscribe(keys, notify)

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        store = self._engine.store
        rows = store.db.read(lambda: [store.lookup.row(key) for key in keys])

        def work(wake: Wake) -> None:
            for row in rows:
                if row is not None:
                    store.forget(row)

        store.change(work, heavy=False)

    async def note(self, key: Key, progress: Progress) -> None:
        store = self._engine.store
        row = store.db.read(lambda: store.lookup.row(key))
        if row is not None:
            values = (row, progress.done, progress.total, progress.note, store.now())

            def work(wake: Wake) -> None:
                store.db.traces = True
                store.db.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?)", values)

            store.change(
                work,
                durable=False,
                heavy=False,
            )

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        check_parts(values)
        store = self._engine.store

        def work(wake: Wake) -> bool:
            wake.results = True  # who waits for parts sleeps beside those who wait for results
            return store.append(key, run, mark, values) is not None

        return store.change(work, durable=False, heavy=False)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        store = self._engine.store
        store.ears.heard(store.watched(key))
        return store.db.read(lambda: store.parts(key, offset, limit))

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        return self._engine.store.subscribe_parts(key, notify)


class SqliteEngine:
    """See `penstock.engine.Engine`. The store is opened at once, so that a bad file is told at the start."""

    transactional = None
    """The file is the engine's own: callers have no transactions in it."""

    def __init__(self, settings: Settings, neighbours: Neighbours | None = None) -> None:
        self._settings = settings
        self.url = f"sqlite:///{settings.path}"
        self._notes = StartNotes()
        self._store = Store(settings, self._notes, neighbours)
        self._group: Group | None = None
        self._closed = False
        self._held = self._forked = self._forgotten = False
        self.broker = SqliteBroker(self, settings.durability, self._notes)
        self.backend = SqliteBackend(self)
        self._parts = (SqliteCoordinator(self._store), SqliteInspect(self._store))
        prepare, parent, child = map(
            weakref.WeakMethod, (self._before_fork, self._after_fork, self._after_fork_in_child)
        )
        os.register_at_fork(
            before=lambda: (method := prepare()) is not None and method(),
            after_in_parent=lambda: (method := parent()) is not None and method(),
            after_in_child=lambda: (method := child()) is not None and method(),
        )

    @property
    def store(self) -> Store:
        """The store of this process."""
        if self._forked:  # set by the hook: asking for the pid is a system call, and this is asked for each task
            self._reopen()
        return self._store

    @property
    def coordinator(self) -> SqliteCoordinator:
        _ = self.store  # a forked child gets its own first
        return self._parts[0]

    @property
    def inspect(self) -> SqliteInspect:
        _ = self.store
        return self._parts[1]

    def _before_fork(self) -> None:
        if not self._closed and not self._forked:
            self._held = self._store.db.hold_for_fork()

    def _after_fork(self) -> None:
        if self._held:
            self._held = False
            self._store.db.release_after_fork()

    def _after_fork_in_child(self) -> None:
        self._forked = not self._closed
        if self._held:
            self._held = False
            self._store.close_after_fork()
            self._forgotten = True

    def _reopen(self) -> None:
        """In a forked child, which has closed what it inherited."""
        if not self._forgotten:
            raise StoreError(
                f"{self._settings.path}: this process was forked in the middle of a transaction; use spawn"
            )
        self._store = Store(self._settings, self._notes)
        self._forked = self._forgotten = False
        self._group = None
        self._parts = (SqliteCoordinator(self._store), SqliteInspect(self._store))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        result: T = drive(call, self.store.publish)
        return result

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        result: T = await self._joined().submit(call)
        return result

    async def apublish(self, call: Coroutine[Any, Any, T]) -> T:
        result: T = await self._joined().submit_publish(call)
        return result

    def _joined(self) -> Group:
        store = self.store
        if self._group is None:
            from penstock.engines.sqlite.group import Group  # asyncio takes 40 ms to import: only who awaits pays

            self._group = Group(store.publish)
        return self._group

    def writer_pid(self) -> int | None:
        return self.store.db.gate.writer() or None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._store.pid != os.getpid():
            return
        if self._group is not None:
            self._group.close()
        self._store.close()
