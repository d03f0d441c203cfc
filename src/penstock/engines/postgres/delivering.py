"""The broker of the PostgreSQL engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import Answer, Cancelled, Demand, Done, Features, Held, Key, Lease, LeaseLost, Lost, Step
from penstock.delivery import Receipt, Settlement
from penstock.engines.postgres.bells import FALLBACK, Horizon
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.core import CALLING, Core
from penstock.engines.postgres.publishing import MAX_BATCH
from penstock.engines.postgres.stepping import NOTHING, Claimed, Idle
from penstock.errors import BrokerError, OutcomeUnknown
from penstock.message import Message
from penstock.shedding import SHEDDING

if TYPE_CHECKING:
    from penstock.engines.postgres.engine import PostgresEngine


def features(durability: str) -> Features:
    return Features(
        engine="postgresql",
        atomic_settle=True,
        max_batch=MAX_BATCH,
        effects=frozenset({"Publish", "Join", "ReleaseKey", "Put"}),
        guards=frozenset({"Unique", "Dedup", "Fence", "Limit"}),
        overflow=frozenset({"reject"}) | SHEDDING,
        streams=True,
        durability="process" if durability == "process" else "power",
    )


SOON = 0.01
"""Seconds: what is due before that is waited for without asking to be woken."""
LINGERING = 2.0
"""Seconds for which the server may still carry out what a broken connection had sent."""


class PostgresBroker:
    def __init__(self, engine: PostgresEngine, durability: str) -> None:
        self._engine = engine
        self.features = features(durability)
        self.record_start = engine.starts.note
        self._interrupts = 0

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return await self._engine.core.publisher.publish(batch, timeout, "exact")

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return await self._engine.core.publisher.publish(batch, timeout, "none")

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        core, interrupts = self._engine.core, self._interrupts
        settled: list[Done | LeaseLost] = []
        if want is None or settle or want.wait <= 0:
            settled, claimed = await self._step(core, settle, want)
        elif (left := core.bells.quiet(want)) > 0:
            claimed = Claimed([], Idle(left, 0, 0))  # nothing has happened since the last look
        elif core.bells.registered():
            settled, claimed = await self._step(core, settle, want)
        else:
            claimed = NOTHING  # the look that counts is the one after registering
        if want is None or want.wait <= 0 or claimed.deliveries:
            return Step(settled, claimed.deliveries)
        try:
            deliveries = (await self._wait(core, want, claimed, interrupts)).deliveries
        except BrokerError:
            if not settled:
                raise
            return Step(settled, [])  # what was settled is; the next step will meet the error
        return Step(settled, deliveries)

    async def _wait(self, core: Core, want: Demand, claimed: Claimed, interrupts: int) -> Claimed:
        """Sleep until something is ready, at most `want.wait` seconds."""
        end = time.monotonic() + want.wait
        while _is_soon(claimed) and time.monotonic() < end and self._interrupts == interrupts:
            await asyncio.sleep(_due(claimed, SOON))
            _, claimed = await self._step(core, (), want)
            if claimed.deliveries:
                return claimed
        queues = await core.call(lambda c: core.lanes.make(c, want.namespace, want.queues))
        horizon = Horizon()
        with core.bells.sleeper() as bell:
            while self._interrupts == interrupts:
                if await core.bells.register(queues):
                    horizon = Horizon()
                    nap = 0.0
                elif claimed.idle is None or not horizon.settled(claimed.idle.oldest, claimed.idle.newest):
                    nap = _due(claimed, horizon.pause())
                else:
                    nap = _due(claimed, FALLBACK)
                    core.bells.hush(want, nap)
                left = end - time.monotonic()
                rung = bool(nap) and await _rung(bell, min(nap, max(left, 0.0)))
                if self._interrupts != interrupts or (not rung and nap > max(left, 0.0)):
                    break
                bell.clear()
                _, claimed = await self._step(core, (), want, asleep=True)
                if claimed.deliveries:
                    break
        return claimed

    async def _step(
        self, core: Core, settle: Sequence[Settlement], want: Demand | None, *, asleep: bool = False
    ) -> tuple[list[Done | LeaseLost], Claimed]:
        async def work(connection: Connection) -> tuple[list[Done | LeaseLost], Claimed]:
            return await core.stepper.step(connection, settle, want, process)

        end = time.monotonic() + CALLING
        while True:
            await self._mend(core, want)
            process = None if asleep or want is None else core.bells.leaving()
            worker = want.worker if want is not None else ""
            core.claims[worker] += 1
            try:
                settled, claimed = await core.call(work, repeat=False)
            except BaseException as error:
                if want is not None:
                    core.orphaned[want.worker] = time.monotonic()
                if settle or not isinstance(error, OutcomeUnknown) or time.monotonic() > end:
                    raise
                continue  # a claim that was lost is given back, and made again
            finally:
                core.claims[worker] -= 1
                core.claimed.set()
            if claimed.deliveries:
                core.bells.busy()
            return settled, claimed

    async def _mend(self, core: Core, want: Demand | None) -> None:
        """Give back what was claimed for this worker by steps whose answer never came: it is alive, so that these
        leases would be renewed for ever."""
        if want is None or want.worker not in core.orphaned:
            return
        async with core.mending:
            while core.claims[want.worker]:  # of what is under way it is not known yet what it holds
                core.claimed.clear()
                await core.claimed.wait()
            broken = core.orphaned.get(want.worker)
            if broken is None:
                return
            schema = core.settings.schema
            held = [token for token, lease in core.stepper.leases.items() if lease.worker == want.worker]
            sql = (
                f"SELECT {schema}.give_back(ARRAY(SELECT token FROM {schema}.lease WHERE worker = $1"
                " AND NOT token = ANY ($2)), '{}', false)"
            )
            await core.call(lambda c: c.fetchval(sql, want.worker, held))
            if time.monotonic() - broken > LINGERING:
                core.orphaned.pop(want.worker, None)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        if not receipts:
            return []
        core = self._engine.core
        schema = core.settings.schema
        sql = (
            f"WITH kept AS (UPDATE {schema}.lease SET until = greatest(until, {schema}.now() + $3)"
            " WHERE token = ANY ($1) RETURNING token, ids, until)"
            " SELECT a.n, k.until, r.terminate FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY a (token, id, n)"
            " JOIN kept k ON k.token = a.token AND a.id = ANY (k.ids)"
            f" LEFT JOIN {schema}.revoked r ON r.id = a.id"
        )
        tokens, ids = [one[0] for one in receipts], [one[1] for one in receipts]
        answers: list[Lease] = [Lost()] * len(receipts)
        for n, until, terminate in await core.call(lambda c: c.fetch(sql, tokens, ids, lease)):
            answers[n - 1] = Held(until) if terminate is None else Cancelled(terminate)
        return answers

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        core = self._engine.core
        schema = core.settings.schema
        sql = (
            f"SELECT q.count + coalesce((SELECT sum(d.count) FROM {schema}.delta d WHERE d.queue = q.id), 0)::bigint"
            f" FROM {schema}.queue q WHERE q.namespace = $1 AND q.name = $2"
        )
        return await core.call(lambda c: c.fetchval(sql, namespace, queue)) or 0

    def public_id(self, key: Key) -> str:
        return key if isinstance(key, str) else self._engine.core.ids.make(key)

    def interrupt(self) -> None:
        self._interrupts += 1
        self._engine.thread.soon(self._engine.core.bells.wake)


def _due(claimed: Claimed, most: float) -> float:
    """Seconds until something that was not ready will be, at most `most`."""
    due = claimed.idle.due if claimed.idle is not None else None
    return most if due is None else min(most, max(due, 0.001))


def _is_soon(claimed: Claimed) -> bool:
    return claimed.idle is not None and _due(claimed, FALLBACK) < SOON


async def _rung(bell: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return False
    return True
