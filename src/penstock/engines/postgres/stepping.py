"""Steps: settle and claim, in one statement where all that was claimed together was acknowledged together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from penstock.broker import DONE, LEASE_LOST, Demand, Done, LeaseLost
from penstock.delivery import Ack, Dead, Delivery, Receipt, Release, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish, Put, ReleaseKey, array
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.floors import Floors
from penstock.engines.postgres.lanes import Lanes, Numbers
from penstock.engines.postgres.outcomes import Packed, pack_outcomes
from penstock.engines.postgres.publishing import Publisher
from penstock.errors import DecodeError
from penstock.message import Message, pack, unpack

EMPTY = Packed([], [], [])


class Lease(Struct):
    """A claim of this process: what of it is not settled yet, by number, with the tasks' names."""

    worker: str
    lane: int
    tasks: dict[int, str]


class Idle(NamedTuple):
    """Nothing was ready. `due`: seconds until something is; `oldest`, `newest`: what ran meanwhile (see bells.py)."""

    due: float | None
    oldest: int
    newest: int


class Claimed(NamedTuple):
    deliveries: list[Delivery]
    idle: Idle | None


NOTHING = Claimed([], None)


class Stepper:
    """Used on the loop thread only."""

    def __init__(self, schema: str, lanes: Lanes, numbers: Numbers, publisher: Publisher) -> None:
        self._lanes = lanes
        self._numbers = numbers
        self._publisher = publisher
        self.leases: dict[int, Lease] = {}
        self._turns: dict[int, int] = {}
        self._floors = Floors()
        columns = "token, lane, ids, attempts, bodies, last, due, oldest, newest, let_go"
        self._step = f"SELECT {columns} FROM {schema}.step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
        self._claim = f"SELECT {columns} FROM {schema}.claim($1, $2, $3, $4, $5, $6, $7, $8)"
        self._settle = f"SELECT {schema}.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        self._gather = f"SELECT {schema}.gather($1, $2, $3, $4)"
        self._retime = (
            f"UPDATE {schema}.cost c SET expires = u.e FROM unnest($1::bigint[], $2::double precision[]) u (i, e)"
            " WHERE c.id = u.i AND c.expires IS DISTINCT FROM u.e"
        )
        self._put = f"SELECT {schema}.put($1, $2, $3)"
        self._free = (
            f"DELETE FROM {schema}.unique_key WHERE ctid = ANY (ARRAY(SELECT u.ctid FROM {schema}.unique_key u,"
            f" {schema}.lane l, {schema}.queue q WHERE l.id = $1 AND q.id = l.queue AND u.namespace = q.namespace"
            " AND u.name = $2 AND u.id = $3 AND NOT u.kept FOR UPDATE OF u SKIP LOCKED))"
        )

    async def step(
        self, connection: Connection, settle: Sequence[Settlement], want: Demand | None, process: str | None
    ) -> tuple[list[Done | LeaseLost], Claimed]:
        """`process`: is registered as sleeping, and is no more."""
        for item in settle:
            check_effects(item.effects)
            if type(item.verdict) is Release:
                self._floors.forget()  # it comes back below
        began = time.monotonic()
        answers, claimed = await self._step_once(connection, settle, want, process)
        self._floors.took(time.monotonic() - began, len(settle) + len(claimed.deliveries))
        return answers, claimed

    async def _step_once(
        self, connection: Connection, settle: Sequence[Settlement], want: Demand | None, process: str | None
    ) -> tuple[list[Done | LeaseLost], Claimed]:
        queues = await self._lanes.queues(connection, want.namespace, want.queues) if want is not None else []
        if not settle:
            if want is None:
                return [], NOTHING
            rows = await connection.fetch(
                self._step, None, None, [], [], [], queues, *self._demand(want, queues, process)
            )
            return [], await self._deliver(connection, rows, want)
        whole = self._whole(settle)
        if whole is not None:
            rows = await self._finish(connection, settle, whole, want, queues, process)
            if rows is not None:
                for token in whole:
                    del self.leases[token]
                claimed = await self._deliver(connection, rows, want) if want is not None else NOTHING
                return [DONE] * len(settle), claimed
        return await self._settle_each(connection, settle, want, queues, process)

    def _demand(self, want: Demand, queues: list[int], process: str | None) -> tuple[Any, ...]:
        turns = [self._turns.get(queue, 0) for queue in queues]
        return want.limit, want.max_bytes, want.worker, want.lease, turns, self._floors.sql(), process

    def _whole(self, settle: Sequence[Settlement]) -> dict[int, int] | None:
        """The leases that this acknowledges as a whole, and nothing else; `None` when it is not so simple."""
        counts: dict[int, int] = {}
        for item in settle:
            if item.effects or type(item.verdict) is not Ack:
                return None
            token = item.receipt[0]
            counts[token] = counts.get(token, 0) + 1
        for token, count in counts.items():
            lease = self.leases.get(token)
            if lease is None or len(lease.tasks) != count:
                return None
        if len({item.receipt[:2] for item in settle}) != len(settle):
            return None
        return counts

    async def _finish(
        self,
        connection: Connection,
        settle: Sequence[Settlement],
        whole: dict[int, int],
        want: Demand | None,
        queues: list[int],
        process: str | None,
    ) -> list[Any] | None:
        """`None`: a lease is lost, and nothing was done."""
        packed = self._pack(settle)
        worker = self.leases[settle[0].receipt[0]].worker
        demand = self._demand(want, queues, process) if want is not None else (0, 0, worker, 0.0, [], None, None)
        rows: list[Any] = await connection.fetch(
            self._step, list(whole), list(whole.values()), *packed, queues if want is not None else None, *demand
        )
        return None if rows and rows[0][1] == -1 else rows

    def _pack(self, settle: Sequence[Settlement]) -> Packed:
        outcomes = [
            (item.receipt[1], self._task(item.receipt), item.outcome) for item in settle if item.outcome is not None
        ]
        return pack_outcomes(outcomes) if outcomes else EMPTY

    def _task(self, receipt: Receipt) -> str:
        lease = self.leases.get(receipt[0])
        return lease.tasks.get(receipt[1], "") if lease is not None else ""

    async def _settle_each(
        self,
        connection: Connection,
        settle: Sequence[Settlement],
        want: Demand | None,
        queues: list[int],
        process: str | None,
    ) -> tuple[list[Done | LeaseLost], Claimed]:
        """In one transaction. What is lost is found first, and left out."""
        answers: list[Done | LeaseLost] = [DONE] * len(settle)
        left: list[int] = []
        seen: set[Receipt] = set()
        for n, item in enumerate(settle):
            if item.receipt[:2] in seen:
                answers[n] = LEASE_LOST  # the first settlement ended it
            else:
                seen.add(item.receipt[:2])
                left.append(n)
        follow_ups = [effect.message for n in left for effect in settle[n].effects if isinstance(effect, Publish)]
        thens = [effect.then for n in left for effect in settle[n].effects if isinstance(effect, Join)]
        if follow_ups or thens:
            # Lanes are made before the transaction: what it makes would be gone with it.
            await self._publisher.prepare(connection, [*follow_ups, *thens])
        sequence = await self._numbers.take(connection, len(left))
        claimed = NOTHING
        while True:
            transaction = connection.transaction()
            await transaction.start()
            try:
                chosen = [settle[n] for n in left]
                lost = await self._settle_in(connection, chosen, sequence) if chosen else []
                if not lost:
                    await self._apply([(item, effect) for item in chosen for effect in item.effects], connection)
                    claimed = await self._claim_in(connection, want, queues, process)
                    await transaction.commit()
                    break
            except BaseException:
                # Nobody is told of these; whether they are leased is found out later (see `PostgresBroker._mend`).
                for delivery in claimed.deliveries:
                    self.leases.pop(delivery.receipt[0], None)
                self._floors.forget()
                await _roll_back(transaction)
                raise
            await transaction.rollback()
            for place in lost:
                answers[left[place - 1]] = LEASE_LOST
                self._drop(settle[left[place - 1]].receipt)
            left = [n for n in left if answers[n] is DONE]
        for n in left:
            self._drop(settle[n].receipt)
        return answers, claimed

    async def _settle_in(self, connection: Connection, chosen: Sequence[Settlement], sequence: range) -> list[int]:
        columns: list[tuple[Any, ...]] = [_row(item) for item in chosen]
        tokens, ids, verdicts, whens, charges, bodies, reasons = (list(column) for column in zip(*columns, strict=True))
        lease = self.leases.get(tokens[0])
        lost: list[int] = await connection.fetchval(
            self._settle, tokens, ids, verdicts, whens, charges, bodies, reasons, list(sequence[: len(chosen)]),
            *self._pack(chosen), lease.worker if lease is not None else "",
        )  # fmt: skip
        limited = [
            (item.receipt[1], item.verdict.message.expires)
            for item in chosen
            if isinstance(item.verdict, RetryAt) and item.verdict.message is not None and item.verdict.message.guards
        ]
        if limited and not lost:
            # What takes the place of a task may expire at another time.
            await connection.execute(self._retime, *map(list, zip(*limited, strict=True)))
        return lost

    async def _claim_in(
        self, connection: Connection, want: Demand | None, queues: list[int], process: str | None
    ) -> Claimed:
        if want is None:
            return NOTHING
        rows = await connection.fetch(self._claim, queues, *self._demand(want, queues, process))
        return await self._deliver(connection, rows, want)

    async def _apply(self, effects: Sequence[tuple[Settlement, Effect]], connection: Connection) -> None:
        messages: list[Message] = []
        joins: dict[str, list[Join]] = {}
        for item, effect in effects:
            match effect:
                case Publish(message=message):
                    messages.append(message)
                case Join():
                    joins.setdefault(effect.id, []).append(effect)
                case ReleaseKey(key=key):
                    lease = self.leases.get(item.receipt[0])
                    await connection.execute(self._free, lease.lane if lease else 0, key, item.receipt[1])
                case Put(key=key, value=value, if_version=if_version):
                    await connection.fetchval(self._put, key, value, if_version)
        # In one order for everybody: two workers with members of the same two joins would wait for each other.
        for name, members in sorted(joins.items()):
            places, values, last = [one.index for one in members], [one.value for one in members], members[-1]
            gathered = await connection.fetchval(self._gather, name, places, values, last.size)
            if gathered is not None:
                messages.append(replace(last.then, body=array(gathered, last.then.content_type)))
        for start in range(0, len(messages), 1000):
            await self._publisher.publish_in(connection, messages[start : start + 1000])

    def _drop(self, receipt: Receipt) -> None:
        lease = self.leases.get(receipt[0])
        if lease is not None:
            lease.tasks.pop(receipt[1], None)
            if not lease.tasks:
                del self.leases[receipt[0]]

    async def _deliver(self, connection: Connection, rows: Sequence[Any], want: Demand) -> Claimed:
        await self._lanes.locate(connection, [row[1] for row in rows if row[0] is not None])
        deliveries: list[Delivery] = []
        for token, lane, ids, attempts, bodies, last, due, oldest, newest, let_go in rows:
            if token is None:
                return Claimed([], Idle(due, int(oldest), int(newest)))
            first = len(deliveries)
            tasks = deliver(token, ids, attempts, bodies, deliveries.append)
            if let_go is not None:
                for delivery in deliveries[first:]:
                    delivery.let_go = let_go
            self.leases[token] = Lease(want.worker, lane, tasks)
            self._turns[self._lanes.queue_of[lane]] = lane
            self._floors.claimed(lane, last)
        return Claimed(deliveries, None)


def deliver(
    token: int, ids: list[int], attempts: list[int], bodies: list[bytes], add: Callable[[Delivery], None]
) -> dict[int, str]:
    """Decode what was claimed; returns the tasks' names by number."""
    tasks: dict[int, str] = {}
    for number, tried, body in zip(ids, attempts, bodies, strict=True):
        try:
            message = unpack(body)
        except DecodeError as error:
            tasks[number] = ""
            add(Delivery((token, number, number), number, None, str(error), body, tried))
            continue
        if tried:
            message.attempts = tried
        tasks[number] = message.task
        key = message.id or number
        add(Delivery((token, number, key), key, message, attempts=message.attempts))
    return tasks


def _row(item: Settlement) -> tuple[Any, ...]:
    token, number = item.receipt[:2]
    match item.verdict:
        case Ack():
            return token, number, "a", None, False, None, None
        case Release():
            return token, number, "r", None, False, None, None
        case RetryAt(when=when, message=message, charge=charge):
            return token, number, "l", when, charge, None if message is None else pack(message), None
        case Dead(reason=reason):
            return token, number, "d", None, False, None, reason


def check_effects(effects: Sequence[Effect]) -> None:
    """Raise before anything is changed."""
    for effect in effects:
        if isinstance(effect, Join):
            array([], effect.then.content_type)


async def _roll_back(transaction: Any) -> None:
    try:
        await transaction.rollback()
    except Exception:  # the connection is broken, which is what is reported
        return
