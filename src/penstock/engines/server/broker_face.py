"""The broker of the engine: publishes that go together, and steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.broker import Answer, Demand, Features, Key, Lease, Step, Unknown
from penstock.delivery import Receipt, Settlement
from penstock.engines.server.holding import Holding, size_of
from penstock.engines.server.link import PATIENCE, MaybePublished
from penstock.engines.server.posting import ROOM
from penstock.errors import MessageTooLarge
from penstock.message import Message, pack
from penstock.protocol.replies import answers_of
from penstock.protocol.requests import InterruptRequest, StepRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

MAX_BATCH = 1_000


def features_before() -> Features:
    """What is known before the broker has said its own."""
    return Features(
        engine="penstock",
        atomic_settle=True,
        max_batch=MAX_BATCH,
        effects=frozenset(),
        guards=frozenset(),
        counts_refusals=True,
    )


class ServerBroker:
    def __init__(self, engine: ServerEngine, features: Features) -> None:
        self._engine = engine
        self.features = features
        self.record_start = engine.starts.note
        self._holding = Holding()

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        if not batch:
            return []
        bodies = [pack(message) for message in batch]
        size = sum(map(len, bodies))
        if size > ROOM:
            raise MessageTooLarge(f"{size:,} bytes in one batch; a frame takes {ROOM:,}: publish fewer at once")
        try:
            return answers_of(await self._engine.link.publish_batch(bodies, timeout))
        except MaybePublished as maybe:
            return _unknown(batch, maybe)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        if not batch:
            return []
        try:
            published = await self._engine.link.follow_up([pack(message) for message in batch], timeout)
        except MaybePublished as maybe:
            return _unknown(batch, maybe)
        return answers_of(published.batches[0])

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        """What is too much for one frame is settled in several."""
        link, ends = self._engine.link, self._holding.ends(settle)
        if len(settle) > 1 and (len(ends.ended) > MAX_BATCH or size_of(ends) > ROOM):
            half = len(settle) // 2
            first = await self.step(settle[:half], None)
            then = await self.step(settle[half:], want)
            return Step([*first.settled, *then.settled], then.deliveries)
        request = StepRequest(link.number(), 0, False, ends.finished, ends.ended, want)
        waits = want.wait if want is not None else 0.0
        reply = await link.step(request, PATIENCE + waits)
        return Step(self._holding.settled(ends, reply), self._holding.take(reply.claims))

    def interrupt(self) -> None:
        self._engine.interrupt_steps()

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        if not receipts:
            return []
        found: list[Lease] = await self._engine.link.call("extend", [(one[0], one[1]) for one in receipts], lease)
        return found

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        found: int | None = await self._engine.link.call("depth", queue, namespace)
        return found

    def public_id(self, key: Key) -> str:
        return key if isinstance(key, str) else self._engine.ids.make(key)

    def forked(self) -> None:
        self._holding.forget()


def _unknown(batch: Sequence[Message], maybe: MaybePublished) -> list[Answer]:
    """Nobody knows; under these ids the broker recognises what it has done."""
    return [
        Unknown(message.id or f"@{maybe.session}.{maybe.mark}.{maybe.batch}.{place}", str(maybe))
        for place, message in enumerate(batch)
    ]


def interruptions(steps: Sequence[StepRequest]) -> list[InterruptRequest]:
    """What cuts short these waiting steps; asked again, they do not wait."""
    for request in steps:
        if request.want is not None:
            request.want = replace(request.want, wait=0.0)
    return [InterruptRequest(request.number) for request in steps if request.want is not None]
