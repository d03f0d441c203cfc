"""Bounds: what a queue has room for, as far as this process knows.

The server tells how many messages are ready, not how many are leased or delayed, and not how many bytes they are. So a
bound is soft. It is asked for again when a part of the room is used up that other publishers, too, may have used.
Where a bound changes, the one of now is asked for with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from penstock.broker import Full
from penstock.draining import retry_after
from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.topology import Topology
from penstock.message import NORMAL, Message
from penstock.queue import Bounds, Queue

FRESH, FOLLOWED = 5.0, 1.0
"""Seconds after which the room is asked for again, and where bounds change."""
SHARE = 8
"""The part of the room that one process takes before it asks again: others publish, too."""
FEW = 64
"""Places that it takes at once: who shares them would ask for each."""
ENVELOPE = 64
"""Bytes of a message beside its body, about."""
RETRY_AFTER = 1.0


class Room(Struct):
    """`limit` is the bound of now, in tasks, `per_second` how many leave; 0: not known. `left` tasks may be published
    until `until` (monotonic) without asking. `size` is the mean of what was published here, in bytes, by which the
    bound of bytes is kept."""

    declared: Queue
    limit: int = 0
    per_second: float = 0.0
    ready: int = 0
    left: int = 0
    until: float = 0.0
    size: float = 0.0
    full: bool = False
    flying: int = 0
    """Admitted here, and not confirmed: they may not be among those that are ready yet."""


class Rooms:
    """`declared`: what this process knows of bounds. It is not on the server: an argument could not be changed."""

    def __init__(self, declared: Iterable[Queue], bounds: Bounds | None) -> None:
        self._rooms: dict[tuple[str, str], Room] = {}
        self._declared = {queue.name: queue for queue in declared}
        self._bounds = bounds

    def declare(self, queue: Queue, namespace: str) -> None:
        self._rooms[queue.name, namespace] = Room(queue)

    def known(self, namespace: str | None) -> list[tuple[str, str]]:
        """(queue, namespace) of all that were declared or used here. `None`: in any that was used."""
        for name in self._declared:
            self.room(name, namespace or "")
        return sorted(place for place in self._rooms if namespace in (None, place[1]))

    def room(self, queue: str, namespace: str) -> Room:
        room = self._rooms.get((queue, namespace))
        if room is None:
            room = self._rooms[queue, namespace] = Room(self._declared.get(queue) or Queue(queue))
        return room

    async def admit(
        self, topology: Topology, batch: Sequence[Message], name: Callable[[str, str], str]
    ) -> tuple[dict[int, Full], list[Room]]:
        """The numbers of those that do not fit, with their answers; and for each of the others its room, to be given
        to `landed`."""
        full: dict[int, Full] = {}
        taken: list[Room] = []
        try:
            await self._admit(topology, batch, name, full, taken)
        except BaseException:
            landed(taken)
            raise
        return full, taken

    async def _admit(
        self,
        topology: Topology,
        batch: Sequence[Message],
        name: Callable[[str, str], str],
        full: dict[int, Full],
        taken: list[Room],
    ) -> None:
        left: dict[tuple[str, str], int] = {}
        now = time.monotonic()
        for number, message in enumerate(batch):
            place = (message.queue, message.namespace)
            if place not in self._rooms:
                name(*place)  # raises for one that cannot be a queue, which nobody is to be shown
            room = self.room(*place)
            if now > room.until or (room.left <= 0 and not room.full):
                await self._ask(topology, room, place, name(*place))
            size = len(message.body)
            room.size += (size - room.size) * (0.05 if room.size else 1.0)
            if room.left > 0:
                room.left -= 1
                room.flying += 1
                taken.append(room)
            else:
                if place not in left:
                    mine = sum((one.queue, one.namespace) == place for one in batch)
                    left[place] = mine - sum(one is room for one in taken)
                full[number] = _full(room, left[place])
        for room in self._rooms.values() if full else ():
            room.full = False  # the next call asks again

    async def limit(self, queue: str, namespace: str) -> int:
        """The bound of now, in tasks."""
        room = self.room(queue, namespace)
        await self._follow(room, (queue, namespace))
        return room.limit

    async def _follow(self, room: Room, place: tuple[str, str]) -> None:
        found = await self._bounds(*place) if self._bounds is not None else None
        declared = room.declared.max_length
        room.limit, room.per_second = (min(declared, found.tasks), found.per_second) if found else (declared, 0.0)

    async def _ask(self, topology: Topology, room: Room, place: tuple[str, str], name: str) -> None:
        await self._follow(room, place)
        ready = await topology.ready(await topology.lane(name, NORMAL))
        for priority in naming.PRIORITIES:
            if priority != NORMAL and topology.has(naming.lane_name(name, priority)):
                ready += await topology.ready(naming.lane_name(name, priority))
        ready += room.flying  # also what others have let in while this one asked
        limit = room.limit
        if room.size:
            limit = min(limit, max(1, int(room.declared.max_bytes / (room.size + ENVELOPE))))
        space = max(0, limit - ready)
        room.ready, room.full = ready, not space
        room.left = space if space <= FEW else space // SHARE
        room.until = time.monotonic() + (FRESH if self._bounds is None else FOLLOWED)


def landed(taken: Sequence[Room]) -> None:
    """It is known, as far as it will be, what became of those that were admitted."""
    for room in taken:
        room.flying -= 1


def _full(room: Room, left: int) -> Full:
    """To one of a call for so many tasks of which there is no room."""
    queue = room.declared
    if room.ready >= room.limit:
        excess, chance = room.ready + left - room.limit, random.random()
        known = room.per_second > 0
        after = retry_after(room.per_second, excess, room.ready, chance) if known else RETRY_AFTER
        return Full(queue.name, room.ready, room.limit, "tasks", after)
    return Full(queue.name, int(room.ready * room.size), queue.max_bytes, "bytes", RETRY_AFTER)
