"""Bounds: what a queue has room for, as far as this process knows.

The server tells how many messages are ready, not how many are leased or delayed, and not how many bytes they are. So a
bound is soft. It is asked for again when a part of the room is used up that other publishers, too, may have used.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from penstock.broker import Full
from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.topology import Topology
from penstock.message import NORMAL, Message
from penstock.queue import Queue

FRESH = 5.0
"""Seconds after which the room is asked for again."""
SHARE = 8
"""The part of the room that one process takes before it asks again: others publish, too."""
FEW = 64
"""Places that it takes at once: who shares them would ask for each."""
ENVELOPE = 64
"""Bytes of a message beside its body, about."""
RETRY_AFTER = 1.0


class Room(Struct):
    """`left` tasks may be published until `until` (monotonic) without asking. `size` is the mean of what was published
    here, in bytes, by which the bound of bytes is kept."""

    declared: Queue
    ready: int = 0
    left: int = 0
    until: float = 0.0
    size: float = 0.0
    full: bool = False


class Rooms:
    """`declared`: what this process knows of bounds. It is not on the server: an argument could not be changed."""

    def __init__(self, declared: Iterable[Queue]) -> None:
        self._rooms: dict[tuple[str, str], Room] = {}
        self._declared = {queue.name: queue for queue in declared}

    def declare(self, queue: Queue, namespace: str) -> None:
        self._rooms[queue.name, namespace] = Room(queue)

    def known(self) -> list[tuple[str, str]]:
        """(queue, namespace) of all that were declared or used here."""
        named = {(name, "") for name in self._declared}
        return sorted(named | self._rooms.keys())

    def room(self, queue: str, namespace: str) -> Room:
        room = self._rooms.get((queue, namespace))
        if room is None:
            room = self._rooms[queue, namespace] = Room(self._declared.get(queue) or Queue(queue))
        return room

    async def admit(
        self, topology: Topology, batch: Sequence[Message], name: Callable[[str, str], str]
    ) -> dict[int, Full]:
        """The numbers of those that do not fit, with their answers."""
        full: dict[int, Full] = {}
        admitted: Counter[tuple[str, str]] = Counter()
        now = time.monotonic()
        for number, message in enumerate(batch):
            place = (message.queue, message.namespace)
            if place not in self._rooms:
                name(*place)  # raises for one that cannot be a queue, which nobody is to be shown
            room = self.room(*place)
            if now > room.until or (room.left <= 0 and not room.full):
                await self._ask(topology, room, name(*place), admitted[place])
            size = len(message.body)
            room.size += (size - room.size) * (0.05 if room.size else 1.0)
            if room.left > 0:
                room.left -= 1
                admitted[place] += 1
            else:
                full[number] = _full(room)
        for room in self._rooms.values() if full else ():
            room.full = False  # the next call asks again
        return full

    async def _ask(self, topology: Topology, room: Room, name: str, admitted: int) -> None:
        """`admitted` are not there yet, and count already."""
        ready = admitted + await topology.ready(await topology.lane(name, NORMAL))
        for priority in naming.PRIORITIES:
            if priority != NORMAL and topology.has(naming.lane_name(name, priority)):
                ready += await topology.ready(naming.lane_name(name, priority))
        limit = room.declared.max_length
        if room.size:
            limit = min(limit, max(1, int(room.declared.max_bytes / (room.size + ENVELOPE))))
        space = max(0, limit - ready)
        room.ready, room.full = ready, not space
        room.left = space if space <= FEW else space // SHARE
        room.until = time.monotonic() + FRESH


def _full(room: Room) -> Full:
    queue = room.declared
    if room.ready >= queue.max_length:
        return Full(queue.name, room.ready, queue.max_length, "tasks", RETRY_AFTER)
    return Full(queue.name, int(room.ready * room.size), queue.max_bytes, "bytes", RETRY_AFTER)
