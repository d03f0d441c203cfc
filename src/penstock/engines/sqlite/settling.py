"""Settling, inside a write transaction: each settlement under its lease, all that it says or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.delivery import Ack, Dead, Release, RetryAt, Settlement
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ending import Ending
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.leases import Held, Leases, rows_of
from penstock.engines.sqlite.limiters import Limiters
from penstock.engines.sqlite.planning import NOTHING, Plan, plan
from penstock.engines.sqlite.publishing import SOON, Wake
from penstock.engines.sqlite.readying import Readier
from penstock.engines.sqlite.results import Results
from penstock.message import pack


class Settler:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        counters: Counters,
        leases: Leases,
        readier: Readier,
        limiters: Limiters,
        results: Results,
        ending: Ending,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._leases = leases
        self._readier = readier
        self._limiters = limiters
        self._results = results
        self._ending = ending
        self._now = now

    def prepare(self, batch: Sequence[Settlement]) -> Plan:
        """All that can be worked out before the lock is taken."""
        if not batch:
            return NOTHING
        held: dict[int, Held] = {}
        for token in {settlement.receipt[0] for settlement in batch}:
            lease = self._leases.get(token)
            if lease is not None:
                held[token] = lease
        return plan(batch, held)

    def settle(self, batch: Sequence[Settlement], prepared: Plan, wake: Wake) -> Plan:
        """Carry out the plan, made anew should a lease be gone, or be another process's; returns what was carried
        out."""
        made = self._check_leases(batch, prepared)
        self.carry_out(made, wake)
        return made

    def held(self, token: int) -> Held | None:
        """What the lease holds still; inside a transaction. `None`: it is lost."""
        row = self._db.execute("SELECT lo, hi, worker FROM lease WHERE token = ?", (token,)).fetchone()
        return None if row is None else self._leases.get(token) or self._read_lease(token, *row)

    def carry_out(self, made: Plan, wake: Wake) -> None:
        """Do what the plan says, whose leases are known to be there (`held`)."""
        if made.effects:
            self._ending.apply(made.effects, wake)
        for low, high in made.acked:
            self._db.execute("DELETE FROM task WHERE id BETWEEN ? AND ?", (low, high))
            self._ending.clear(low, high)
        for low, high in made.nameless:
            self._ending.forget_names(low, high)
        for queue, (count, size) in made.leaving.items():
            self._counters.leave(queue, count, size)
        for settlement, lease in made.others:
            self._settle_one(settlement, lease, wake)
        if made.results:
            self._results.insert(made.results)
            wake.results = True
        for token in made.ended:
            self._db.execute("DELETE FROM lease WHERE token = ?", (token,))
        for lane, count in made.limited:
            opened = self._limiters.freed(lane)
            if opened:
                wake.queues |= opened
                wake.tasks += count

    def _check_leases(self, batch: Sequence[Settlement], prepared: Plan) -> Plan:
        """A lease whose row is gone gives no right to settle."""
        held: dict[int, Held] = {}
        right = len(prepared.tokens)
        for token in {settlement.receipt[0] for settlement in batch}:
            row = self._db.execute("SELECT lo, hi, worker FROM lease WHERE token = ?", (token,)).fetchone()
            if row is not None:
                held[token] = self._leases.get(token) or self._read_lease(token, *row)
                right -= token in prepared.tokens
            elif token in prepared.tokens:
                right = -1
        return prepared if right == 0 and len(held) == len(prepared.tokens) else plan(batch, held)

    def _read_lease(self, token: int, low: int, high: int, worker: str) -> Held:
        """A lease that another process took (its supervisor settles for it, now that it is dead)."""
        tasks = {row: ("", size) for row, size, _ in rows_of(self._db, token, low, high)}
        return Held(token, self._catalog.by_id(lane_of(low)), tasks, worker)

    def _settle_one(self, settlement: Settlement, lease: Held, wake: Wake) -> None:
        row = settlement.receipt[1]
        queue = lease.lane.queue
        size = lease.tasks[row][1]
        match settlement.verdict:
            case Release():
                wake.queues |= self._readier.put_back([row])
                wake.tasks += 1
            case RetryAt(when=when, message=message, charge=charge):
                self._delay(row, when, None if message is None else pack(message), size, charge, queue)
                if when <= self._now() + SOON:
                    wake.queues |= 1 << (queue & 63)
                    wake.tasks += 1
            case Dead(reason=reason):
                self._db.execute(
                    "INSERT OR REPLACE INTO dead SELECT id, ?, ?, ?, attempts, body FROM task WHERE id = ?",
                    (queue, reason, self._now(), row),
                )
                self._db.execute("DELETE FROM task WHERE id = ?", (row,))
                self._ending.clear(row, row)
                self._counters.leave(queue, 1, size)
            case Ack():
                raise AssertionError("acks are settled in runs")

    def _delay(self, row: int, when: float, body: bytes | None, size: int, charge: bool, queue: int) -> None:
        self._readier.expect(when)
        if body is None:
            self._db.execute("UPDATE task SET due = ?, attempts = attempts + ? WHERE id = ?", (when, int(charge), row))
            grown = 0
        else:
            self._db.execute(
                "UPDATE task SET due = ?, attempts = attempts + ?, body = ? WHERE id = ?",
                (when, int(charge), body, row),
            )
            grown = len(body) - size
        self._counters.delay(queue, 1, grown)
