"""Settling, inside a write transaction: each settlement under its lease, all that it says or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, field

from penstock.broker import DONE, LEASE_LOST, Done, LeaseLost
from penstock.delivery import Ack, Dead, Release, RetryAt, Settlement
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.claiming import Claimer
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ending import Ending
from penstock.engines.sqlite.ids import lane_of, runs
from penstock.engines.sqlite.leases import Held, Leases, rows_of
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.results import Results
from penstock.message import pack
from penstock.outcome import Outcome


class Settled(Struct):
    """What one call settled: the answers, and the rows that left each lease."""

    answers: list[Done | LeaseLost]
    gone: dict[int, list[int]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)


class Settler:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        leases: Leases,
        claimer: Claimer,
        results: Results,
        ending: Ending,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._leases = leases
        self._claimer = claimer
        self._results = results
        self._ending = ending
        self._now = now

    def settle(self, batch: Sequence[Settlement], wake: Wake) -> Settled:
        held = self._check_leases(batch)
        settled = Settled([], lost={token for token, one in held.items() if one is None})
        acked: dict[int, list[int]] = {}
        outcomes: dict[int, tuple[str, Outcome]] = {}
        sizes: dict[int, list[int]] = {}
        others: list[tuple[Settlement, Held]] = []
        seen: set[object] = set()
        for settlement in batch:
            token, row = receipt = settlement.receipt
            lease = held[token]
            if lease is None or row not in lease.tasks or receipt in seen:
                settled.answers.append(LEASE_LOST)
                continue
            seen.add(receipt)
            settled.answers.append(DONE)
            settled.gone.setdefault(token, []).append(row)
            if type(settlement.verdict) is Ack:
                task, size = lease.tasks[row]
                acked.setdefault(lease.lane.id, []).append(row)
                sizes.setdefault(lease.lane.queue, []).append(size)
                if settlement.outcome is not None:
                    outcomes[row] = (task, settlement.outcome)
            else:
                others.append((settlement, lease))
            if settlement.effects:
                self._ending.apply(settlement.effects, row, wake)
        for rows in acked.values():
            rows.sort()
            for low, high in runs(rows):
                self._db.execute("DELETE FROM task WHERE id BETWEEN ? AND ?", (low, high))
                self._ending.clear(low, high, outcomes)
        for queue, gone in sizes.items():
            self._leave(queue, len(gone), sum(gone))
        for settlement, lease in others:
            self._settle_one(settlement, lease, outcomes, wake)
        if outcomes:
            worker = next(one.worker for one in held.values() if one is not None)
            self._results.add(outcomes, worker)
            wake.results = True
        self._end_leases(held, settled.gone)
        return settled

    def _check_leases(self, batch: Sequence[Settlement]) -> dict[int, Held | None]:
        """The lease of each token; `None` where the row is gone, and with it the right to settle."""
        held: dict[int, Held | None] = {}
        for settlement in batch:
            token = settlement.receipt[0]
            if token not in held:
                row = self._db.execute("SELECT lo, hi FROM lease WHERE token = ?", (token,)).fetchone()
                held[token] = None if row is None else (self._leases.get(token) or self._read_lease(token, *row))
        return held

    def _read_lease(self, token: int, low: int, high: int) -> Held:
        """A lease that another process took (its supervisor settles for it, now that it is dead)."""
        tasks = {row: ("", size) for row, size, _ in rows_of(self._db, token, low, high)}
        worker = self._db.execute("SELECT worker FROM lease WHERE token = ?", (token,)).fetchone()[0]
        return Held(token, self._catalog.by_id(lane_of(low)), tasks, worker)

    def _leave(self, queue: int, count: int, size: int) -> None:
        self._db.execute(
            "UPDATE queue SET depth = depth - ?1, bytes = bytes - ?2, settled = settled + ?1 WHERE id = ?3",
            (count, size, queue),
        )

    def _settle_one(
        self, settlement: Settlement, lease: Held, outcomes: dict[int, tuple[str, Outcome]], wake: Wake
    ) -> None:
        row = settlement.receipt[1]
        task, size = lease.tasks[row]
        match settlement.verdict:
            case Release():
                wake.queues |= self._claimer.put_back([row])
                wake.tasks += 1
            case RetryAt(when=when, message=message, charge=charge):
                self._delay(row, when, None if message is None else pack(message), size, charge, lease.lane.queue)
                if when <= self._now() + 2.0:
                    wake.queues |= 1 << (lease.lane.queue & 63)
                    wake.tasks += 1
            case Dead(reason=reason):
                self._db.execute(
                    "INSERT OR REPLACE INTO dead SELECT id, ?, ?, ?, body FROM task WHERE id = ?",
                    (lease.lane.queue, reason, self._now(), row),
                )
                self._db.execute("DELETE FROM task WHERE id = ?", (row,))
                self._leave(lease.lane.queue, 1, size)
                if settlement.outcome is not None:
                    outcomes[row] = (task, settlement.outcome)
            case Ack():
                raise AssertionError("acks are settled in runs")

    def _delay(self, row: int, when: float, body: bytes | None, size: int, charge: bool, queue: int) -> None:
        if body is None:
            self._db.execute("UPDATE task SET due = ?, attempts = attempts + ? WHERE id = ?", (when, int(charge), row))
            grown = 0
        else:
            self._db.execute(
                "UPDATE task SET due = ?, attempts = attempts + ?, body = ? WHERE id = ?",
                (when, int(charge), body, row),
            )
            grown = len(body) - size
        self._db.execute("UPDATE queue SET delayed = delayed + 1, bytes = bytes + ? WHERE id = ?", (grown, queue))

    def _end_leases(self, held: dict[int, Held | None], gone: dict[int, list[int]]) -> None:
        for token, rows in gone.items():
            lease = held[token]
            if lease is not None and len(rows) == len(lease.tasks):
                self._db.execute("DELETE FROM lease WHERE token = ?", (token,))
