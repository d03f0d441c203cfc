"""Publishes of awaiting callers: what several hand in at once goes in one frame, and is answered each for itself."""

from __future__ import annotations

import asyncio

from penstock.engines.server.link import Batch, Link, MaybePublished
from penstock.protocol.frames import MAX_FRAME

ROOM = MAX_FRAME - (1 << 20)
"""Bytes of messages in one frame."""
TOGETHER, MESSAGES = 64, 1_000
"""Batches in one frame, and messages of all of them."""


class Posting:
    """One frame to be."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.waiting: list[asyncio.Future[Batch]] = []
        self.size = self.messages = 0
        self.timeout = 0.0

    def has_room(self, messages: int, size: int) -> bool:
        return (
            self.size + size <= ROOM and self.messages + messages <= MESSAGES and len(self.batches) < TOGETHER
        ) or not self.batches


class GatheringLink(Link):
    """The link of the engine's loop."""

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self._posting: Posting | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def publish_batch(self, bodies: list[bytes], timeout: float) -> Batch:
        size = sum(map(len, bodies))
        loop = asyncio.get_running_loop()
        posting = self._posting
        if posting is None or not posting.has_room(len(bodies), size):
            posting = self._posting = Posting()
            task = loop.create_task(self._send(posting))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        posting.batches.append(bodies)
        posting.size += size
        posting.messages += len(bodies)
        posting.timeout = max(posting.timeout, timeout)
        answer: asyncio.Future[Batch] = loop.create_future()
        posting.waiting.append(answer)
        return await answer

    async def _send(self, posting: Posting) -> None:
        """What is handed in until this runs goes along."""
        if self._posting is posting:
            self._posting = None
        try:
            published = await self.publish(posting.batches, posting.timeout)
            for waiting, found in zip(posting.waiting, published.batches, strict=True):
                if not waiting.done():
                    waiting.set_result(found)
        except MaybePublished as maybe:
            for number, waiting in enumerate(posting.waiting):
                if not waiting.done():
                    waiting.set_exception(MaybePublished(maybe.session, maybe.mark, str(maybe), number))
        except BaseException as error:
            for waiting in posting.waiting:
                if not waiting.done():
                    waiting.set_exception(error)
            if not isinstance(error, Exception):
                raise
