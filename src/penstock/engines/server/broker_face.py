"""The broker of the engine: publishes that go together, and steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock.broker import Answer, Demand, Features, Key, Lease, Step, Unknown
from penstock.delivery import Receipt, Settlement
from penstock.engines.server.holding import Holding, size_of
from penstock.engines.server.link import PATIENCE, MaybePublished
from penstock.errors import MessageTooLarge
from penstock.message import Message, pack
from penstock.protocol.frames import MAX_FRAME
from penstock.protocol.replies import answers_of
from penstock.protocol.requests import InterruptRequest, StepRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

MAX_BATCH = 1_000
ROOM = MAX_FRAME - (1 << 20)
"""Bytes of messages in one frame."""
TOGETHER = 64
"""Batches of several callers in one frame."""


def features_before() -> Features:
    """What is known before the broker has said its own."""
    return Features(engine="penstock", atomic_settle=True, max_batch=MAX_BATCH, effects=frozenset(), guards=frozenset())


class Posting:
    """Publishes of one turn of the loop: they go in one frame, and are answered each for itself."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.waiting: list[asyncio.Future[list[Answer]]] = []
        self.size = 0
        self.timeout = 0.0


class ServerBroker:
    def __init__(self, engine: ServerEngine, features: Features) -> None:
        self._engine = engine
        self.features = features
        self.record_start = engine.starts.note
        self._holding = Holding()
        self._posting: Posting | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._steps: dict[int, StepRequest] = {}
        """Steps that wait for work, by number."""

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        if not batch:
            return []
        bodies = [pack(message) for message in batch]
        size = sum(map(len, bodies))
        if size > ROOM:
            raise MessageTooLarge(f"{size:,} bytes in one batch; a frame takes {ROOM:,}: publish fewer at once")
        posting = self._posting
        if posting is None or posting.size + size > ROOM or len(posting.batches) >= TOGETHER:
            posting = self._posting = Posting()
            task = asyncio.get_running_loop().create_task(self._send(posting))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        posting.batches.append(bodies)
        posting.size += size
        posting.timeout = max(posting.timeout, timeout)
        answer: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        posting.waiting.append(answer)
        try:
            return await answer
        except MaybePublished as maybe:
            return self._unknown(batch, maybe, posting.waiting.index(answer))

    async def _send(self, posting: Posting) -> None:
        """What is handed in until this runs goes along."""
        if self._posting is posting:
            self._posting = None
        try:
            _, published = await self._engine.link.publish(posting.batches, posting.timeout)
            for waiting, found in zip(posting.waiting, published.batches, strict=True):
                if not waiting.done():
                    waiting.set_result(answers_of(found))
        except BaseException as error:
            for waiting in posting.waiting:
                if not waiting.done():
                    waiting.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _unknown(self, batch: Sequence[Message], maybe: MaybePublished, number: int) -> list[Answer]:
        """Nobody knows; under these ids the broker recognises what it has done."""
        session = self._engine.link.session
        return [
            Unknown(message.id or f"@{session}.{maybe.mark}.{number}.{place}", str(maybe))
            for place, message in enumerate(batch)
        ]

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        if not batch:
            return []
        try:
            _, published = await self._engine.link.follow_up([pack(message) for message in batch], timeout)
        except MaybePublished as maybe:
            return self._unknown(batch, maybe, 0)
        return answers_of(published.batches[0])

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        """What is too much for one frame is settled in several."""
        ends = self._holding.ends(settle)
        if len(settle) > 1 and (len(ends.ended) > MAX_BATCH or size_of(ends) > ROOM):
            half = len(settle) // 2
            first = await self.step(settle[:half], None)
            then = await self.step(settle[half:], want)
            return Step([*first.settled, *then.settled], then.deliveries)
        request = StepRequest(self._engine.link.number(), 0, False, ends.finished, ends.ended, want)
        waits = want.wait if want is not None else 0.0
        if waits:
            self._steps[request.number] = request
        try:
            reply = await self._engine.link.step(request, PATIENCE + waits)
        finally:
            self._steps.pop(request.number, None)
        return Step(self._holding.settled(ends, reply), self._holding.take(reply.claims))

    def interrupt(self) -> None:
        if self._steps and self._engine.is_open():
            self._engine.thread.soon(self._interrupt)

    def _interrupt(self) -> None:
        for number, request in self._steps.items():
            if request.want is not None:  # asked again, it does not wait
                request.want = replace(request.want, wait=0.0)
            self._engine.link.tell(InterruptRequest(number))

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
        self._posting = None
        self._sending.clear()
        self._steps.clear()
