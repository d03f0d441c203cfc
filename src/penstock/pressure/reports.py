"""What live processes tell each other of their samples: a few values of the small shared state, each of some processes.
Pure, apart from `told`."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

import msgspec
from msgspec import Struct

from penstock.coordinator import Shared
from penstock.pressure.law import Threads
from penstock.pressure.samples import LONGEST, Samples, is_sane

SHARDS = 8
EXPIRES = 60.0
"""Seconds after which a report is dropped by who writes another."""
MOST = 128
"""Reports in one shard; the oldest go."""
MOST_SLOTS = 1_000_000


class Run(Struct, array_like=True):
    """A task that runs now, for so many `seconds`; `limit` is its time limit, or what is expected of it. No task: the
    process is stopped."""

    queue: str
    task: str
    seconds: float
    limit: float | None = None


class Standing(Struct, array_like=True):
    """A process that runs something now: how many of its slots are busy, since how many seconds nothing has ended
    there nor told of progress, and the `runs` that take longest."""

    worker: str
    slots: int
    busy: int
    still: float
    runs: list[Run] = []

    def sane(self) -> bool:
        numbers = (self.still, *(run.seconds for run in self.runs), *(run.limit or 0.0 for run in self.runs))
        return 0 <= self.busy <= self.slots <= MOST_SLOTS and all(0 <= one <= LONGEST for one in numbers)


class Report(Struct, array_like=True):
    """Of one process with its children, by the `name` of its worker. `at` is Unix time, `slots` are what it runs
    now."""

    at: float
    slots: int
    queues: tuple[str, ...]
    samples: Samples
    name: str = ""
    busy: int = 0
    standing: list[Standing] = []
    """Of its processes that run something for long, some."""
    pid: int = 0
    """Of the process that tells."""

    @property
    def who(self) -> str:
        """Which process on which machine: many workers of a machine may have one name."""
        return f"{self.name} pid {self.pid}" if self.pid else self.name

    @property
    def threads(self) -> Threads:
        return Threads(self.slots, self.queues, self.samples.busy)


def shard_name(namespace: str, number: int) -> str:
    return f"pressure:{namespace}:{number}"


def shard_of(holder: str) -> int:
    return crc32(holder.encode()) % SHARDS


def with_report(data: bytes | None, holder: str, report: Report) -> bytes:
    """The shard with this report in the place of the last one, and without those that are too old."""
    fresh = [(name, one) for name, one in read(data).items() if name != holder and abs(report.at - one.at) <= EXPIRES]
    youngest = sorted(fresh, key=lambda item: item[1].at, reverse=True)[: MOST - 1]
    return msgspec.msgpack.encode({**dict(youngest), holder: report})


def read(data: bytes | None) -> dict[str, Report]:
    """Those that can be true."""
    if data is None:
        return {}
    try:
        found = msgspec.msgpack.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}
    return {holder: one for holder, raw in found.items() if (one := _report(raw)) is not None}


def _report(raw: msgspec.Raw) -> Report | None:
    try:
        one = msgspec.msgpack.decode(raw, type=Report)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    known = 0 <= one.slots <= MOST_SLOTS and one.pid >= 0 and is_sane(one.samples)
    return one if known and one.busy >= 0 and all(standing.sane() for standing in one.standing) else None


class Watch:
    """Who lives: whose report has changed lately, by this process's own clock, since those of others may be off."""

    def __init__(self, silent: float) -> None:
        """Seconds after which a process that says nothing new counts as gone."""
        self._silent = silent
        self._seen: dict[str, tuple[float, float]] = {}

    def live(self, reports: Mapping[str, Report], now: float, wall: float) -> list[Report]:
        """`now` is monotonic, `wall` Unix time. What seems old at first sight counts as soon as it changes."""
        seen = {}
        for holder, one in reports.items():
            at, since = self._seen.get(holder, (None, now))
            if at is None and abs(wall - one.at) > self._silent:
                since = float("-inf")
            seen[holder] = (one.at, since if at in (None, one.at) else now)
        self._seen = seen
        return [reports[holder] for holder, (_, since) in seen.items() if now - since <= self._silent]


async def told(coordinator: Shared, namespace: str) -> dict[str, Report]:
    """All reports of a namespace, by their holders."""
    found: dict[str, Report] = {}
    for number in range(SHARDS):
        value = await coordinator.get(shard_name(namespace, number))
        found |= read(value[0] if value else None)
    return found
