"""The embedded store: plain synchronous operations on one database, each one transaction. No asyncio here."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from penstock.backend import Notify
from penstock.broker import Answer, Cancelled, Demand, Held, Key, Lease, Lost, Step
from penstock.delivery import Delivery, Receipt, Settlement
from penstock.engines.sqlite.bells import Bell, Ringer, Rings, result_bell, work_bell
from penstock.engines.sqlite.board import mask
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.claiming import Claimed, Claimer, deliver
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ending import Ending
from penstock.engines.sqlite.guards import Guards
from penstock.engines.sqlite.handing import Handing
from penstock.engines.sqlite.ids import FIRST_TASK, PARKED, lane_of
from penstock.engines.sqlite.leases import Leases
from penstock.engines.sqlite.limiters import Limiters, signed
from penstock.engines.sqlite.listening import Ear, Ears
from penstock.engines.sqlite.looking import Lookup
from penstock.engines.sqlite.making_room import MakingRoom
from penstock.engines.sqlite.planning import Plan
from penstock.engines.sqlite.publishing import Publisher, Wake, outgoing
from penstock.engines.sqlite.readying import NEXT_DUE, Readier
from penstock.engines.sqlite.reaping import Reaper
from penstock.engines.sqlite.registry import Registered, Registry, StartNotes
from penstock.engines.sqlite.results import Results, find
from penstock.engines.sqlite.revoking import Revoker
from penstock.engines.sqlite.settings import Settings
from penstock.engines.sqlite.settling import Settler
from penstock.engines.sqlite.spare import Spare
from penstock.engines.sqlite.streams import Streams, drop
from penstock.engines.sqlite.watching import Watch, Watcher, Watches
from penstock.errors import BrokerError, StoreFull
from penstock.message import Message, Unique
from penstock.outcome import Parts, State
from penstock.public_ids import PublicIds

T = TypeVar("T")

LIGHT = 16
"""A publish of up to this many messages goes before workers and bulk when several want the lock."""
STEP_TIMEOUT = 30.0
"""Seconds for which a worker waits for the lock before it says so."""


class Neighbours(NamedTuple):
    """Whom a store works for: the processes of its machine, or the clients of a broker. `sync` makes what was committed
    as durable as it is to be."""

    registry: Registered
    rings: Rings
    sync: Callable[[], None]


class Store:
    """Composition of the parts, and the hot verbs. Thread-safe."""

    def __init__(self, settings: Settings, notes: StartNotes, neighbours: Neighbours | None = None) -> None:
        """Without `neighbours` it is for the processes of this machine."""
        self.settings = settings
        self.now = settings.clock.time
        self.db = Database(
            settings.path,
            durable=settings.durability == "power",
            sole=settings.sole,
            sync=settings.sync,
            vfs=settings.vfs,
        )
        self.pid = os.getpid()
        board, folder = self.db.board, self.db.run_folder
        self.ids = PublicIds(self.db.secret)
        self.spare = Spare(os.path.join(folder, "spare"), board)
        self.registry, self.rings, self._sync = neighbours or Neighbours(
            Registry(folder), Ringer(folder, board), self.db.sync
        )
        self.counters = Counters(self.db)
        self.catalog = Catalog(self.db, self.counters, settings.queues)
        self.leases = Leases()
        self.results = Results(self.db, settings.result_expires, settings.result_max_bytes, self.now)
        self.limiters = Limiters(self.db, self.now)
        self.readier = Readier(self.db, self.catalog, self.counters, self.limiters, self.now)
        self.revoker = Revoker(self.db, self.catalog, self.counters, self.limiters, self.results, self.now)
        self.streams = Streams(self.db, settings.result_expires, settings.result_max_bytes, self.now)
        self.publisher = Publisher(
            self.db,
            self.catalog,
            self.counters,
            self.readier,
            self.limiters,
            Guards(self.db, self.catalog, self.revoker, self.now),
            self.ids,
            MakingRoom(
                self.db, self.catalog, self.counters, self.readier, self.limiters, self.revoker, self.results, self.now
            ),
            self.results,
            self.now,
        )
        self.ending = Ending(self.db, self.publisher)
        self.claimer = Claimer(self.db, self.catalog, self.readier, self.limiters, self.revoker.drop_leased, self.now)
        self.handing = Handing(self.db, self.catalog, self.counters, self.now)
        self.settler = Settler(
            self.db,
            self.catalog,
            self.counters,
            self.leases,
            self.readier,
            self.limiters,
            self.results,
            self.ending,
            self.now,
        )
        self.reaper = Reaper(self.db, self.catalog, self.registry, self.readier, self.limiters, self.results, self.now)
        self.lookup = Lookup(self.db, self.ids, self.registry)
        self.watches = Watches(self.db, self.lookup)
        self.ears = Ears(self.db, self.lookup, self.streams)
        self.watcher = Watcher(
            self.watches, self.ears.look, board, Bell(os.path.join(folder, result_bell(board.place)))
        )
        self._bell = Bell(os.path.join(folder, work_bell(board.place)))
        self._masks: dict[tuple[str, tuple[str, ...]], int] = {}
        self._waiting = 0
        self._interruptions = 0
        self._waiting_lock = threading.Lock()
        self._notes = notes
        notes.map = None

    def change(
        self, work: Callable[[Wake], T], *, timeout: float = STEP_TIMEOUT, durable: bool = True, heavy: bool = True
    ) -> T:
        """Run `work` in a write transaction, then wake whom it says.

        Workers need not wait for the sync: what they take is not confirmed to its caller yet, and a lease is lost with
        it. Callers are told of results only after. With `durable=False` the commit may be lost with the power.
        """
        wake = Wake()
        result = self.db.write(lambda: work(wake), timeout=timeout, heavy=heavy)
        with contextlib.suppress(ValueError):  # another thread has closed the board: what is committed stays so
            if wake.queues:
                self.rings.work(wake.queues, wake.tasks)
        if durable and not wake.refused:
            self._sync()
        with contextlib.suppress(ValueError):
            if wake.results:
                self.rings.results()
        return result

    def publish(self, batches: Sequence[Sequence[Message]], timeout: float) -> list[list[Answer]]:
        try:
            self.spare.check()
        except ValueError:  # the board is closed
            self.db.check_open()
            raise
        packed = [outgoing(batch) for batch in batches]
        heavy = len(batches) == 1 and len(batches[0]) > LIGHT
        return self.change(lambda wake: self.publisher.publish(packed, wake), timeout=timeout, heavy=heavy)

    def follow_up(self, batch: Sequence[Message], timeout: float) -> list[Answer]:
        """What is always admitted, in one transaction."""
        return self.change(
            lambda wake: [self.publisher.follow_up(message, wake) for message in batch],
            timeout=timeout,
            heavy=len(batch) > LIGHT,
        )

    def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        settled, deliveries = self._settle_and_claim(settle, want)
        if want is not None and want.wait and not deliveries:
            return Step(settled.answers, self._wait_for_work(want))
        return Step(settled.answers, deliveries)

    def _settle_and_claim(self, settle: Sequence[Settlement], want: Demand | None) -> tuple[Plan, list[Delivery]]:
        """One transaction; what needs no lock is worked out before and after it."""
        prepared = self.settler.prepare(settle)
        wanted = want is not None and want.limit > 0

        def work(wake: Wake) -> tuple[Plan, list[Claimed]]:
            settled = self.settler.settle(settle, prepared, wake) if settle else prepared
            claims = self.claimer.claim(want) if want is not None and wanted else []
            opening = self.claimer.take_opening()
            if claims and opening is not None:
                wake.queues |= opening.queues  # this worker has something to do: another is to watch the time
                wake.tasks += 1
            return settled, claims

        try:
            settled, claims = self.change(work, durable=bool(settle))
        except StoreFull:
            if not self.spare.give_up():
                raise
            settled, claims = self.change(work, durable=bool(settle))
        self.leases.settle(settled.gone)
        if settled is not prepared:
            for token in set(prepared.tokens) - set(settled.tokens):
                self.leases.lose(token)
        if want is None or not claims:
            return settled, []
        deliveries, held = deliver(claims, want.worker)
        self.leases.add(held)
        self._free_started_keys(deliveries)
        return settled, deliveries

    def _free_started_keys(self, deliveries: Sequence[Delivery]) -> None:
        """Unique keys that are held until the start only are free from here on."""
        keys = [
            (guard.key, delivery.receipt[1])
            for delivery in deliveries
            if delivery.message is not None and delivery.message.guards
            for guard in delivery.message.guards
            if isinstance(guard, Unique) and guard.until == "start"
        ]
        if keys:
            self.free_keys(keys)

    def free_keys(self, keys: Sequence[tuple[str, int]]) -> None:
        """Free unique keys of started rows. They end with their tasks at the latest; what is claimed must reach its
        worker."""
        with contextlib.suppress(BrokerError):
            self.change(lambda wake: self.db.executemany("DELETE FROM unique_key WHERE name = ? AND id = ?", keys))

    def _wait_for_work(self, want: Demand) -> Sequence[Delivery]:
        """Sleep until a publish, a due task or `interrupt` wakes this thread, and claim."""
        deadline = time.monotonic() + want.wait
        interruptions = self._interruptions
        bits = self._mask(want)
        while interruptions == self._interruptions:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            self._enter_waiting(bits)
            try:
                ready, due = self._outlook(want, bits)
                if not ready and interruptions == self._interruptions:
                    self._bell.wait(remaining if due is None else min(remaining, max(0.0, due - self.now())))
            finally:
                self._leave_waiting(bits)
            _, deliveries = self._settle_and_claim((), want)
            if deliveries:
                if self._waiting:  # the ring was for this process: another of its threads may find more
                    self._bell.ring()
                return deliveries
        return ()

    def _mask(self, want: Demand) -> int:
        """The board's bit set of the queues; ids never change, so it is worked out once."""
        known = self._masks.get((want.namespace, want.queues))
        if known is None:
            queues = self.change(
                lambda wake: [self.catalog.queue(want.namespace, name) for name in want.queues], durable=False
            )
            known = self._masks[want.namespace, want.queues] = mask(queues)
        return known

    def _enter_waiting(self, bits: int) -> None:
        with self._waiting_lock:
            if not self._waiting:
                self._bell.empty()
            self._waiting += 1
            self.db.board.wait_for_work(bits)

    def _leave_waiting(self, bits: int) -> None:
        with self._waiting_lock:
            self._waiting -= 1
            if self._waiting:
                self.db.board.wait_for_work(bits)  # the ring was for one thread; the others still wait
            else:
                self.db.board.stop_waiting_for_work()

    def _outlook(self, want: Demand, bits: int) -> tuple[bool, float | None]:
        """Whether something is ready for `want`, and when a task may be next that is delayed or limited."""

        def work() -> tuple[bool, float | None]:
            marks = ", ".join("?" for _ in want.queues)
            ready = self.db.query(
                f"SELECT EXISTS (SELECT 1 FROM queue q JOIN lane l ON l.queue = q.id AND l.eligible = 1"
                f" WHERE q.namespace = ? AND q.name IN ({marks}) AND NOT q.paused)",
                (want.namespace, *want.queues),
            ).fetchone()[0]
            due = self.db.query(NEXT_DUE, (signed(bits),)).fetchone()[0]
            return bool(ready), due

        return self.db.read(work)

    def interrupt(self) -> None:
        self._interruptions += 1
        for _ in range(self._waiting + 1):
            self._bell.ring()

    def extend(self, receipts: Sequence[Receipt], lease: float) -> list[Lease]:
        """Renew the leases of `receipts`; lost ones are forgotten here too."""
        until = self.now() + lease
        gone: set[int] = set()

        def work(wake: Wake) -> list[Lease]:
            answers: list[Lease] = []
            alive: dict[int, bool] = {}
            for token, row in receipts:
                if token not in alive:
                    self.db.execute("UPDATE lease SET until = max(until, ?) WHERE token = ?", (until, token))
                    alive[token] = bool(self.db.changes())
                    if not alive[token]:
                        gone.add(token)
                revoked = self.db.execute("SELECT terminate FROM revoked WHERE id = ?", (row,)).fetchone()
                if not alive[token] or not self.leases.holds(token, row):
                    answers.append(Lost())
                else:
                    answers.append(Cancelled(bool(revoked[0])) if revoked else Held(until))
            return answers

        answers = self.change(work, durable=False, heavy=False)
        for (token, _), answer in zip(receipts, answers, strict=True):
            if isinstance(answer, Lost) and token in gone:
                self.leases.lose(token)
        return answers

    def subscribe(self, keys: Sequence[Key], notify: Notify) -> Watch:
        return self.watcher.subscribe([self.watched(key) for key in keys], notify)

    def subscribe_parts(self, key: Key, notify: Callable[[], None]) -> Ear:
        key = self.watched(key)
        ear = self.ears.add(key, notify)
        ear.watch = self.watcher.subscribe([key], ear.tell)
        return ear

    def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> int | None:
        """Add parts of a task that has not ended, inside a write transaction; returns its row, or `None` when nothing
        is added."""
        row = key if isinstance(key, int) else self.row_to_store(key)
        if self.has_result(row) or self.db.execute("SELECT 1 FROM dead WHERE id = ?", (row,)).fetchone():
            return None
        return row if self.streams.append(row, run, mark, values) else None

    def parts(self, key: Key, offset: int, limit: int) -> Parts:
        """What is kept of a task's parts, inside `Database.read`."""
        row = self.lookup.row(key)
        found = None if row is None else self.streams.parts(row, offset, limit)
        if found is None:
            state = self.lookup.report(key).state
            return Parts(0, 0, (), ended=state.terminal or state is State.UNKNOWN)
        return replace(found, ended=row is not None and self.lookup.has_ended(row))

    def drop_parts(self, rows: Sequence[int]) -> None:
        """Inside a write transaction."""
        for row in rows:
            drop(self.db.execute, row, row)
            if not self.publisher.is_here(row):
                self.db.execute("DELETE FROM alias WHERE id = ?", (row,))

    def watched(self, key: Key) -> Key:
        """The key as `Watches` knows it: the row where it was minted here."""
        return (self.ids.number(key) or key) if isinstance(key, str) else key

    def row_of(self, key: Key) -> int | None:
        """The row of a key; `None` for one that nobody has seen, or that cannot be."""
        if isinstance(key, int):
            return key if 0 < key < 1 << 63 else None
        return self.db.read(lambda: self.lookup.row(key))

    def place(self, row: int) -> tuple[str, str, int, str] | None:
        """Namespace, queue, priority and partition of a row that was given to a task; `None` for another number."""
        lane = self.catalog.find(lane_of(row))
        if lane is None:
            return None
        tail, parked = self.db.read(
            lambda: self.db.query("SELECT tail, parked FROM lane WHERE id = ?", (lane.id,)).fetchone()
        )
        known = row < parked if row & PARKED else row < tail
        return (lane.namespace, lane.queue_name, lane.priority, lane.partition) if known else None

    def queue_of_holder(self, key: str) -> str | None:
        """The queue of the task that holds a unique key, if there is one."""
        row = self.db.read(lambda: self.db.query("SELECT id FROM unique_key WHERE name = ?", (key,)).fetchone())
        lane = None if row is None else self.catalog.find(lane_of(row[0]))
        return None if lane is None else lane.queue_name

    def lease_of(self, token: int) -> tuple[str, str] | None:
        """Worker and queue of a lease; `None` when it is lost."""
        held = self.leases.get(token)
        if held is not None:
            return held.worker, held.lane.queue_name
        row = self.db.read(lambda: self.db.query("SELECT worker, lo FROM lease WHERE token = ?", (token,)).fetchone())
        lane = None if row is None else self.catalog.find(lane_of(row[1]))
        return None if row is None or lane is None else (row[0], lane.queue_name)

    def row_in_write(self, name: str) -> int | None:
        """The row of a public id, inside a write transaction."""
        minted = self.ids.number(name)
        if minted is not None:
            return minted
        found = self.db.execute("SELECT id FROM alias WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def row_to_store(self, name: str) -> int:
        """The row of a public id, which a task that was never here gets now; inside a write transaction."""
        row = self.row_in_write(name)
        if row is None:
            (last,) = self.db.execute("SELECT max(id) FROM alias WHERE id < ?", (FIRST_TASK,)).fetchone()
            row = (last or 0) + 1
            self.db.execute("INSERT INTO alias VALUES (?, ?)", (name, row))
        return row

    def forget(self, row: int) -> None:
        """Drop a result, inside a write transaction."""
        self.results.forget(row)
        if row < FIRST_TASK:
            self.db.execute("DELETE FROM alias WHERE id = ?", (row,))

    def has_result(self, row: int) -> bool:
        """Inside a write transaction."""
        return find(self.db.execute, row) is not None

    def join(self, worker: str, slots: int) -> None:
        self._notes.map = self.registry.open(worker, slots)

    def close(self) -> None:
        self.interrupt()
        self.watcher.close()
        self._notes.map = None
        self.registry.close()
        self.rings.close()
        self.db.close()
        with self._waiting_lock:
            if not self._waiting:  # else a thread that did not hear the interruption sleeps in it
                self._bell.close()

    def close_after_fork(self) -> None:
        """In a forked child: this store is the parent's, and held still (`Database.hold_for_fork`)."""
        self._bell.close()
        self.watcher.close_after_fork()
        self._notes.map = None
        self.registry.close()
        self.rings.close()
        self.db.close_after_fork()
