"""Publishers that wait for room in a full queue: they are not read meanwhile, so that TCP holds up what they send."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from penstock.protocol.replies import Blocked, Unblocked
from penstock.server.peer import Peer

LOOK_AGAIN = 0.02
"""Seconds between two tries of those that wait, however much leaves the queue."""
AT_ONCE = 16
"""Publishes that are tried again together."""
MAX_WAIT = 60.0
REASON = "its queue is full"


class Held:
    """One publish that found its queue full. `again` tries it once more, `give_up` answers what there is."""

    __slots__ = ("again", "give_up", "order", "peer", "until")

    def __init__(self, peer: Peer, until: float, again: Callable[[], None], give_up: Callable[[], None]) -> None:
        self.peer, self.until, self.again, self.give_up = peer, until, again, give_up
        self.order = 0

    def __lt__(self, other: Held) -> bool:
        return self.order < other.order


class BlockedPublishers:
    """Of one namespace, oldest first."""

    def __init__(self, overflow: Callable[[str, str], str]) -> None:
        """`overflow` tells what becomes of the publishers of a queue."""
        self._loop = asyncio.get_running_loop()
        self._overflow = overflow
        self._held: list[Held] = []
        self._count: Counter[Peer] = Counter()
        """Publishes of a client that are held, or just tried again."""
        self._orders = count(1)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def deadline(self, timeout: float) -> float:
        return self._loop.time() + (min(timeout, MAX_WAIT) if timeout > 0 else 0.0)  # NaN is no time

    def hold(self, held: Held, namespace: str, queue: str) -> bool:
        """Make it wait for room, if its queue is declared so and its time is not over; `False`: answer it."""
        if held.peer.closed or self._loop.time() >= held.until or self._overflow(namespace, queue) != "block":
            return False
        if not held.order:
            held.order = next(self._orders)
            self._count[held.peer] += 1
            if self._count[held.peer] == 1:
                held.peer.send(Blocked(queue))
                held.peer.pause(REASON)
        heappush(self._held, held)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._look)
        return True

    def release(self, held: Held) -> None:
        """It is answered."""
        if not held.order:
            return
        self._count[held.peer] -= 1
        if self._count[held.peer] <= 0:
            del self._count[held.peer]
            held.peer.resume(REASON)
            held.peer.send(Unblocked())

    def drop(self, peer: Peer) -> None:
        """Its connection has ended."""
        self._held = [held for held in self._held if held.peer is not peer]
        heapify(self._held)
        del self._count[peer]

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = [held for held in self._held if now >= held.until]
        if over:
            self._held = [held for held in self._held if now < held.until]
            heapify(self._held)
        for held in over:
            held.give_up()
        tried = [heappop(self._held) for _ in range(min(AT_ONCE, len(self._held)))]
        for held in tried:
            held.again()
        if self._held:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._look)
