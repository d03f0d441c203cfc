"""Who was refused by full queues lately, and how often each queue has refused in all: a few values of the small shared
state, each of some processes. Pure, apart from `told` and `tell`."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from math import isfinite
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.coordinator import Shared
from penstock.engine import Engine
from penstock.errors import AccessRefused
from penstock.message import MAX_NAME
from penstock.queue import QueueInfo

SHARDS = 4
EVERY = 2.0
"""Seconds between two times that a process tells of its own."""
FRESH = 3 * EVERY
"""Seconds after which who says nothing more is not refused any more."""
LATELY = 600.0
"""Seconds for which it is kept who was refused."""
MOST = 128
"""Of them in one shard; the oldest go."""
MOST_QUEUES = 1_000
"""Queues that are counted apart in one shard, those that come first."""
MOST_COUNTED = 256
"""Kinds of refusals that a process counts apart until they are told."""
MAX_COUNT = 1 << 62
OTHERS = "(others)"
TRIES = 5
"""Others write into the same value."""

Kind = tuple[str, str, str]
"""Who was refused, by which queue, which task."""


class Refusal(Struct, array_like=True, frozen=True):
    """`who` was refused `count` calls of `task` by `queue`, the last of them `at` (Unix time), when they were
    `per_second`."""

    who: str
    queue: str
    task: str
    count: int
    at: float
    per_second: float

    @property
    def kind(self) -> Kind:
        return self.who, self.queue, self.task

    def rate(self, now: float) -> float:
        """Calls a second now."""
        return self.per_second if now - self.at <= FRESH else 0.0

    def sane(self) -> bool:
        names = (self.who, self.queue, self.task)
        numbers = isfinite(self.at) and 0 <= self.per_second <= MAX_COUNT
        return numbers and 0 < self.count <= MAX_COUNT and all(len(one) <= 2 * MAX_NAME for one in names)


class Refusals(Struct, array_like=True):
    """`totals` only grow, as long as the shared state is kept; `lately` is who was refused lately."""

    totals: dict[str, int] = {}
    lately: list[Refusal] = []

    def total(self, queue: str) -> int | None:
        """Calls that it has refused; `None`: it may be among those that are not counted apart."""
        return self.totals.get(queue, None if OTHERS in self.totals else 0)

    def sane(self) -> bool:
        known = len(self.totals) <= MOST_QUEUES + 1 and all(0 <= count <= MAX_COUNT for count in self.totals.values())
        return known and len(self.lately) <= MOST and all(one.sane() for one in self.lately)


class Counts:
    """What a process has refused, or was refused, and has not told yet. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Kind, int] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, who: str, queue: str, task: str, number: int = 1) -> None:
        kind = (who[:MAX_NAME], queue[:MAX_NAME], task[:MAX_NAME])  # else one long name would spoil a shard
        with self._lock:
            if kind not in self._counts and len(self._counts) >= MOST_COUNTED:
                kind = (OTHERS, queue if len(self._counts) < 2 * MOST_COUNTED else OTHERS, OTHERS)
            self._counts[kind] = self._counts.get(kind, 0) + number

    def take(self) -> dict[Kind, int]:
        """They are told now, or `give_back` follows."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def give_back(self, counts: Mapping[Kind, int]) -> None:
        for kind, number in counts.items():
            self.add(*kind, number)


def shard_name(namespace: str, number: int) -> str:
    return f"refused:{namespace}:{number}"


def with_counts(data: bytes | None, counts: Mapping[Kind, int], seconds: float, now: float) -> bytes:
    """The shard with these, counted in so many seconds, and without what is too old."""
    before = read(data)
    totals = dict(before.totals)
    lately = {one.kind: one for one in before.lately if abs(now - one.at) <= LATELY}
    for (who, queue, task), number in counts.items():
        counted = queue if queue in totals or len(totals) < MOST_QUEUES else OTHERS
        totals[counted] = min(MAX_COUNT, totals.get(counted, 0) + number)
        known = lately.get((who, queue, task))
        count = min(MAX_COUNT, number + (known.count if known else 0))
        lately[who, queue, task] = Refusal(who, queue, task, count, now, number / seconds)
    youngest = sorted(lately.values(), key=lambda one: one.at, reverse=True)[:MOST]
    return msgspec.msgpack.encode(Refusals(totals, youngest))


def read(data: bytes | None) -> Refusals:
    """Nothing, where it cannot be true."""
    if data is None:
        return Refusals()
    try:
        found = msgspec.msgpack.decode(data, type=Refusals)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Refusals()
    return found if found.sane() else Refusals()


async def tell(
    coordinator: Shared, namespace: str, holder: str, counts: Mapping[Kind, int], seconds: float, now: float
) -> bool:
    """Add what `holder` has counted in the last `seconds`; `False`: others were in the way."""
    name = shard_name(namespace, crc32(holder.encode()) % SHARDS)
    for _ in range(TRIES):
        data, version = await coordinator.get(name) or (None, 0)
        if await coordinator.put(name, with_counts(data, counts, seconds, now), version) is not None:
            return True
    return False


async def told(coordinator: Shared, namespace: str, now: float) -> Refusals | None:
    """All of a namespace; who was refused last comes first. `None`: this user may not read it, which is nobody else's
    trouble."""
    found = Refusals()
    for number in range(SHARDS):
        try:
            value = await coordinator.get(shard_name(namespace, number))
        except AccessRefused:
            return None
        shard = read(value[0] if value else None)
        for queue, count in shard.totals.items():
            found.totals[queue] = found.totals.get(queue, 0) + count
        found.lately += (one for one in shard.lately if abs(now - one.at) <= LATELY)
    found.lately.sort(key=lambda one: one.at, reverse=True)
    return found


async def with_totals(engine: Engine, infos: Sequence[QueueInfo], now: float) -> Sequence[QueueInfo]:
    """These queues, with how many calls each has refused."""
    if not engine.broker.features.coordination:
        return infos
    names = dict.fromkeys(info.namespace for info in infos)
    known = {name: await told(engine.coordinator, name, now) for name in names}
    return [counted(info, known[info.namespace]) for info in infos]


def counted(info: QueueInfo, refusals: Refusals | None) -> QueueInfo:
    """With what it has refused, if that is known."""
    return info if refusals is None else replace(info, refused=refusals.total(info.name))
