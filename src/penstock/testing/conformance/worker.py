"""A worker as the checks need one: it reserves, settles, and knows nothing of tasks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import DONE, Demand, Done, LeaseLost, Step
from penstock.clock import SystemClock
from penstock.commit import Committer, FusedCommitter, OrderedCommitter
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement, Verdict
from penstock.dispatch import Dispatch
from penstock.effects import Effect
from penstock.engine import Engine
from penstock.outcome import Outcome, State
from penstock.testing.conformance.expect import Violation, equal

if TYPE_CHECKING:
    from penstock.testing.conformance.kit import Kit

LONG = 600.0
"""Seconds of a lease that shall not run out during a check."""
SLOTS = 16
"""More than the workers of one kit: each has a slot of its own, for engines where they share a handle."""


class Worker:
    def __init__(self, kit: Kit, engine: Engine, name: str, slot: int) -> None:
        self.kit, self.engine, self.name, self.slot = kit, engine, name, slot
        self.id = uuid.uuid4().hex
        self.broker = Dispatch(engine.broker)
        self.committer: Committer = (
            FusedCommitter(self.broker)
            if kit.fused
            else OrderedCommitter(self.broker, kit.results, kit.clock or SystemClock())
        )

    async def join(self) -> None:
        info = WorkerInfo(self.id, self.name, "localhost", os.getpid(), SLOTS, (), "solo", self.kit.now())
        await self.kit.call(self.engine.coordinator.join(info), self.engine)

    def demand(
        self,
        *queues: str,
        limit: int = 10,
        lease: float = LONG,
        wait: float = 0.0,
        max_bytes: int = 8 << 20,
        namespace: str = "",
    ) -> Demand:
        return Demand(queues, limit, self.id, lease, wait, max_bytes, namespace)

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        return await self.kit.call(self.committer.step(settle, want), self.engine)

    async def take(self, *queues: str, count: int = 1, lease: float = LONG) -> list[Delivery]:
        """Exactly `count` deliveries, in the order in which they came, from as many steps as the engine needs."""
        taken = await self.take_up_to(*queues, count=count, lease=lease)
        equal(len(taken), count, f"deliveries from {', '.join(queues)}")
        return taken

    async def take_up_to(self, *queues: str, count: int, lease: float = LONG) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < count:
            want = self.demand(*queues, limit=count - len(taken), lease=lease, wait=self.kit.patience)
            deliveries = (await self.step([], want)).deliveries
            if not deliveries:
                break
            taken += deliveries
        return taken

    async def take_one(self, *queues: str, lease: float = LONG) -> Delivery:
        return (await self.take(*queues, lease=lease))[0]

    async def nothing(self, *queues: str) -> None:
        """Nothing may be delivered now."""
        taken = (await self.step([], self.demand(*queues, wait=self.kit.patience))).deliveries
        if taken:
            raise Violation(f"nothing should be delivered from {', '.join(queues)}, but was: {list(taken)!r}")

    async def settle(self, *settlements: Settlement) -> list[Done | LeaseLost]:
        return list((await self.step(settlements, None)).settled)

    async def finish(
        self, delivery: Delivery, verdict: Verdict = ACK, outcome: Outcome | None = None, effects: Sequence[Effect] = ()
    ) -> None:
        """Settle one delivery whose lease must be held."""
        settled = await self.settle(Settlement(delivery.receipt, verdict, outcome, tuple(effects)))
        equal(settled, [DONE], "settlement of a held delivery")

    def start(self, delivery: Delivery) -> None:
        self.broker.record_start(self.slot, delivery.receipt)

    def id_of(self, delivery: Delivery) -> str:
        """The public id of a delivery."""
        return self.broker.public_id(delivery.key)

    def ids_of(self, deliveries: Sequence[Delivery]) -> list[str]:
        return [self.id_of(delivery) for delivery in deliveries]


def success(kit: Kit, value: bytes = b"1") -> Outcome:
    return Outcome(State.SUCCESS, value, kit.now())


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries if delivery.message is not None]
