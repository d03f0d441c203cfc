"""The turns of one store: what all clients want at the moment goes into one transaction, answered after one sync.

While a sync runs, the next turn gathers. Who asks for work and gets none is parked until there is some.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from penstock.broker import Demand
from penstock.engines.sqlite.board import mask
from penstock.engines.sqlite.joint import Joint, Work
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.store import Store
from penstock.errors import BrokerError
from penstock.server.syncing import Syncer

MOST = 256
"""Callers of one transaction: it stays short, and so does the wait of the next."""
MOST_TASKS = 2_000
"""Messages and settlements of one transaction."""
NAMES = 256
"""Awaited ids of no row that one look tries: somebody may wait for a million that there are not."""
FEW, FAST = 4, 0.001
"""Callers whose sync is done on the loop, where it takes less than so many seconds."""
ALL = (1 << 64) - 1
"""Any queue."""

log = logging.getLogger("penstock.broker")


class Entry(Struct, eq=False):
    """One caller in a turn. `reply` is called once, on the loop, when all that it tells is as durable as it is to
    be."""

    work: Work
    reply: Callable[[Work], None]
    size: int = 1
    waits: float = 0.0
    """Seconds it waits when there is no work for it."""
    ready: Callable[[], bool] = lambda: True
    """It can take deliveries now."""
    parked: bool = False
    mask: int = 0
    timer: asyncio.TimerHandle | None = None


class Turns:
    def __init__(self, store: Store, syncer: Syncer, *, slow: float, failed: Callable[[BaseException], None]) -> None:
        """`slow`: seconds from which on a turn is logged. `failed` is told of a sync that failed: nothing can be
        accepted any more."""
        self._store = store
        self._joint = Joint(store)
        self._syncer = syncer
        self._loop = asyncio.get_running_loop()
        self.slow = slow
        self._failed = failed
        self._durable = store.db.durable
        self._entries: list[Entry] = []
        self._after: list[Callable[[], None]] = []
        """To be called when what was committed until now is durable."""
        self._scheduled = self._syncing = False
        self._gathered = 0
        self._sync_time = FAST
        """Seconds of a sync, about."""
        self._woken = Wake()
        """By what other calls changed."""
        self._parked: dict[Entry, None] = {}
        self._works: dict[int, Entry] = {}
        self._unsynced = self._results = self._look = self._put_off = False
        self._dead: list[int] = []
        """Rows that ended without a result of their own, maybe: to be looked at."""
        self._due: asyncio.TimerHandle | None = None
        self._came_due = False
        self._delays = True
        """Since the last look something may have been delayed, or come due."""
        self.wakes = 0
        """Counts up whenever there may be new work for somebody."""
        self.closed = False

    # What callers use.

    @property
    def joint(self) -> Joint:
        return self._joint

    def submit(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._schedule()

    def after_sync(self, then: Callable[[], None]) -> None:
        """Call `then` when what other calls have changed is durable: at once where they changed nothing."""
        if self._unsynced and self._durable:
            self._after.append(then)
            self._schedule()
        else:
            self._unsynced = False
            then()

    def when_done(self, then: Callable[[], None]) -> None:
        """Call `then` when all that was submitted until now is done, and as durable as it is to be."""
        if self.idle:
            then()
        else:
            self.submit(Entry(Work(), lambda work: self._after.append(then)))

    def park(self, entry: Entry, woken: int = 0) -> None:
        """It waits for work. `woken`: queues that have got some since it looked."""
        demand = entry.work.demand
        assert demand is not None
        if entry.waits <= 0 or self.closed:
            self._answer_empty(entry)
            return
        entry.parked = True
        entry.mask = self._mask(demand)
        entry.timer = self._loop.call_later(entry.waits, self._answer_empty, entry)
        self._parked[entry] = None
        self._works[id(entry.work)] = entry
        if woken & entry.mask:
            self.work(woken, MOST_TASKS)
        self._look_when_due()

    def unpark(self, entry: Entry) -> None:
        """Its client is interrupted, or gone: it is answered now."""
        if entry.parked:
            self._answer_empty(entry)

    @property
    def parked(self) -> Sequence[Entry]:
        return list(self._parked)

    # What a store tells (`Rings`), and its sync.

    def work(self, queues: int, tasks: int) -> None:
        """Other calls made tasks ready, or delayed some."""
        self._delays = True
        self._woken.queues |= queues
        self._woken.tasks += tasks
        self.wakes += 1
        self._schedule()

    def results(self) -> None:
        self._results = True
        self._schedule()

    def changed(self) -> None:
        """Other calls committed what must be durable before they are answered."""
        self._unsynced = True

    def close(self) -> None:
        """Answer all who wait, and take no more."""
        self.closed = True
        for entry in list(self._parked):
            self._answer_empty(entry)
        if self._due is not None:
            self._due.cancel()

    @property
    def idle(self) -> bool:
        return not (self._entries or self._after or self._syncing or self._scheduled)

    # A turn.

    def _schedule(self) -> None:
        if not self._scheduled and not self._syncing:
            self._scheduled = True
            self._loop.call_soon(self._gather if self._durable else self._turn)

    def _gather(self) -> None:
        """While each look at the sockets brings more, those who come share the sync. Without syncs a turn is short."""
        count = len(self._entries)
        if count > self._gathered and count < MOST:
            self._gathered = count
            self._loop.call_soon(self._gather)
        else:
            self._gathered = 0
            self._turn()

    def _turn(self) -> None:
        self._scheduled = False
        if self._store.db.is_closed:
            return
        entries = self._next()
        woken, self._woken = self._woken, Wake()
        served: list[Work] = []
        if entries or woken.queues:
            started = time.perf_counter()
            served = self._joint.commit([entry.work for entry in entries], woken, self._waiting)
            self._tell_slow(time.perf_counter() - started, entries)
            self._delays |= any(_delays(entry.work) for entry in entries)
        limited = self._store.claimer.take_opening() is not None
        self._delays |= limited
        if woken.queues:
            self.wakes += 1
        # What comes while this turn is synced is not durable with it, and is told by the next one.
        self._look |= self._results or woken.results
        self._results = False
        if not self._durable:
            self._tell_results(entries)
        later = self._reply_now(entries, served, woken.queues)
        after, self._after = self._after, []
        unsynced = self._durable and (bool(later) or self._unsynced)
        self._unsynced = False
        if unsynced:
            self._sync(later, after, woken.queues)
        else:
            self._finish(later, after, woken.queues)
            if self._durable:
                self._tell_results(entries)
        if served or limited or self._came_due:
            self._came_due = False
            self._look_when_due()
        if self._entries:
            self._schedule()

    def _sync(self, later: Sequence[Entry], after: Sequence[Callable[[], None]], woken: int) -> None:
        """On the thread, while the next turn gathers; here, for a few on a fast disk: a change of threads takes as
        long."""
        if len(later) <= FEW and self._sync_time < FAST:
            began, error = time.perf_counter(), None
            try:
                self._store.db.sync()
            except Exception as raised:
                error = raised
            self._sync_time += (time.perf_counter() - began - self._sync_time) / 8
            self._synced(error, later, after, woken)
            return
        began = time.perf_counter()

        def synced(error: BaseException | None) -> None:
            self._sync_time += (time.perf_counter() - began - self._sync_time) / 8
            self._synced(error, later, after, woken)

        self._syncing = True
        self._syncer.sync(self._store.db.sync, synced)

    def _next(self) -> list[Entry]:
        if len(self._entries) == 1:
            entries, self._entries = self._entries, []
            return entries
        count = tasks = 0
        for entry in self._entries:
            tasks += entry.size
            if count >= MOST or (count and tasks > MOST_TASKS):
                break
            count += 1
        entries, self._entries = self._entries[:count], self._entries[count:]
        return entries

    def _reply_now(self, entries: Sequence[Entry], served: Sequence[Work], woken: int) -> Sequence[Entry]:
        """Answer those who need not wait for a sync; returns the others. Who got nothing is parked."""
        for work in served:
            entry = self._works.pop(id(work))
            self._leave(entry)
            self._reply(entry)
        later = []
        for entry in entries:
            if entry.work.changed and self._durable:
                later.append(entry)
            else:
                self._conclude(entry, woken)
        return later

    def _conclude(self, entry: Entry, woken: int) -> None:
        work = entry.work
        if work.demand is not None and not work.claims and work.error is None and entry.waits > 0:
            self.park(entry, woken)
        else:
            self._reply(entry)

    def _synced(
        self,
        error: BaseException | None,
        later: Sequence[Entry],
        after: Sequence[Callable[[], None]],
        woken: int,
    ) -> None:
        self._syncing = False
        if error is not None:
            for entry in later:
                entry.work.error = error
            self._failed(error)
        # What else was changed is not durable either: its callers are cut off, and do not know.
        if error is None:
            self._tell_results(later)
        self._finish(later, () if error is not None else after, woken)
        if self._entries or self._woken.queues or self._after or self._results or self._put_off:
            self._schedule()

    def _finish(self, later: Sequence[Entry], after: Sequence[Callable[[], None]], woken: int) -> None:
        for entry in later:
            self._conclude(entry, woken)
        for then in after:
            try:
                then()
            except Exception:  # likewise
                log.exception("a reply could not be sent")

    def _tell_results(self, entries: Sequence[Entry]) -> None:
        watches = self._store.watches
        works = [entry.work for entry in entries if entry.work.plans]
        self._dead += [row for work in works for row in dead_rows(work)]
        try:
            watches.tell_runs([run for work in works for _, made in work.plans for run in made.results])
            if (self._look or self._dead) and self._may_look():
                dead, self._dead = self._dead, []
                self._look = False
                watches.look(dead, NAMES)
        except BrokerError as trouble:
            log.error("looking for results failed: %s", trouble)
        except Exception:  # the turns go on
            log.exception("looking for results failed")

    def _may_look(self) -> bool:
        """A look sees what other calls committed during the sync, too, which is told only when it is durable: with the
        next sync. Should there be such again by then, it is synced here, so that a look is never put off for long."""
        if not (self._unsynced and self._durable):
            self._put_off = False
            return True
        self._put_off = not self._put_off
        if self._put_off:
            return False
        try:
            self._store.db.sync()
        except Exception as error:
            self._failed(error)
            return False
        return True

    def _reply(self, entry: Entry) -> None:
        try:
            entry.reply(entry.work)
        except Exception:  # one client's trouble is not another's
            log.exception("a reply could not be sent")

    def _waiting(self, queues: int) -> Iterator[Work]:
        """Those who wait for one of these queues; who was asked goes to the end of the row."""
        for entry in list(self._parked):
            if entry.mask & queues and entry.ready():
                del self._parked[entry]
                self._parked[entry] = None
                yield entry.work

    def _answer_empty(self, entry: Entry) -> None:
        self._works.pop(id(entry.work), None)
        self._leave(entry)
        entry.work.claims = []
        self._reply(entry)

    def _leave(self, entry: Entry) -> None:
        self._parked.pop(entry, None)
        entry.parked = False
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None

    def _mask(self, demand: Demand) -> int:
        known = self._store.catalog.known_queue
        queues = [known(demand.namespace, name) for name in demand.queues]
        return mask([queue for queue in queues if queue is not None]) if None not in queues else ALL

    def _look_when_due(self) -> None:
        """Wake up when the next delayed task is due, if somebody waits."""
        if not self._parked or not self._delays:
            return
        self._delays = False
        due = self._store.readier.next_due()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if due is not None:
            self._due = self._loop.call_later(max(0.0, due - self._store.now()), self._come_due)

    def _come_due(self) -> None:
        self._due, self._delays = None, True
        self._came_due = True  # timers may be early by a millisecond, and nothing be due yet
        self.work(ALL, MOST_TASKS)

    def _tell_slow(self, seconds: float, entries: Sequence[Entry]) -> None:
        if seconds >= self.slow:
            tasks = sum(entry.size for entry in entries)
            log.warning("applied %d calls of %d tasks: took %.0f ms", len(entries), tasks, seconds * 1000)


def _delays(work: Work) -> bool:
    """It may have delayed something: a task with an eta, a retry, a follow-up."""
    return (
        bool(work.follow_up)
        or any(one.lane is None for one in work.publish)
        or any(made.others or made.effects for _, made in work.plans)
    )


def dead_rows(work: Work) -> Iterator[int]:
    """Rows that ended without a result of their own, maybe."""
    for _, made in work.plans:
        for settlement, _ in made.others:
            yield settlement.receipt[1]
