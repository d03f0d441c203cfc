"""The timetable as the broker keeps it, in its small shared state: spread over shards, so that a change writes few.

Each shard is a list of records; who changes one says which version it has read. A key of its own is written after each
change, so that the leading beat has one thing to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal
from zlib import crc32

import msgspec
from msgspec import Struct

from penstock.beat.line import CatchUp, Line
from penstock.coordinator import Coordinator
from penstock.errors import BrokerError, ConfigError, StoreError
from penstock.message import pack, unpack
from penstock.schedules import Known, Schedule

SHARDS = 64
MOST_IN_SHARD = 8_192
MOST_BYTES = 4 << 20
"""Of one shard: with `SHARDS` of them, what the timetable may take at all."""
TRIES = 50
"""Times that a change is tried again because somebody else made one meanwhile."""


class Record(Struct, frozen=True, array_like=True):
    """A line as it is kept. `schedule` is `None` for one that only the app's code knows; `text` is it for people."""

    name: str
    origin: Literal["app", "added"]
    since: float
    paused: bool
    schedule: Known | None
    text: str
    message: bytes
    jitter: float
    catch_up: CatchUp
    max_late: float | None
    signed: bytes = b""
    """Who vouches for it: see `penstock.beat.vouching`."""


class Position(Struct, frozen=True, array_like=True):
    """How far the timetable is dealt with: all that fires up to `moment`. `era` counts the times that the clock was set
    back; `holder` led when this was written, at `seen` (Unix time)."""

    moment: float
    era: int
    holder: str
    seen: float


_records = msgspec.msgpack.Decoder(list[Record])
_position = msgspec.msgpack.Decoder(Position)


def record_of(line: Line) -> Record:
    return Record(
        line.name,
        line.origin,
        line.since,
        line.paused,
        line.schedule if isinstance(line.schedule, Known) else None,
        text_of(line.schedule),
        pack(line.message),
        line.jitter,
        line.catch_up,
        line.max_late,
    )


def text_of(schedule: Schedule) -> str:
    """A schedule for people. One that does not say what it is, is known by its class: `object`'s own text would be
    another in each process, and look like a change."""
    kind = type(schedule)
    return kind.__qualname__ if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__ else str(schedule)


def line_from(record: Record) -> Line | None:
    """`None` for a schedule that only the app's code knows."""
    if record.schedule is None:
        return None
    message = unpack(record.message)
    return Line(
        record.name,
        record.schedule,
        message,
        record.jitter,
        record.catch_up,
        record.max_late,
        record.origin,
        record.since,
        record.paused,
    )


class Timetables:
    """The stored timetable of one app. Its methods are coroutines, for `Engine.run` or `arun`."""

    def __init__(self, coordinator: Coordinator, prefix: str) -> None:
        """`prefix` begins its keys in the shared state."""
        self._coordinator = coordinator
        self._prefix = prefix
        self._versions: dict[int, int] = {}
        self._shards: dict[int, list[Record]] = {}

    # -- records

    async def changes(self) -> int:
        """A number that is another after each change."""
        found = await self._coordinator.get(f"{self._prefix}:changes")
        return 0 if found is None else found[1]

    async def read(self) -> dict[str, Record]:
        """All records by name. What has not changed since the last time is not read again in full."""
        for shard in range(SHARDS):
            records, version = await self._read(shard)
            self._versions[shard], self._shards[shard] = version, records
        return {record.name: record for records in self._shards.values() for record in records}

    async def find(self, name: str) -> Record | None:
        records, _ = await self._read(_shard_of(name))
        return next((record for record in records if record.name == name), None)

    async def change(self, names: Iterable[str], decide: Callable[[str, Record | None], Record | None]) -> None:
        """Make each record what `decide` says, given its name and what it is now (`None`: not there). Raises what
        `decide` raises, and `ConfigError` when there are too many."""
        changed = False
        try:
            for some in by_shard(names):
                changed |= await self._change_shard(_shard_of(some[0]), some, decide)
        finally:
            if changed:
                await self._coordinator.put(f"{self._prefix}:changes", b"1")

    async def _change_shard(
        self, shard: int, names: Sequence[str], decide: Callable[[str, Record | None], Record | None]
    ) -> bool:
        for _ in range(TRIES):
            records, version = await self._read(shard)
            before = {record.name: record for record in records}
            after = dict(before)
            for name in names:
                wanted = decide(name, before.get(name))
                if wanted is None:
                    after.pop(name, None)
                else:
                    after[name] = wanted
            if after == before:
                return False
            value = _encoded(after)
            if await self._coordinator.put(self._key(shard), value, version) is not None:
                return True
        raise BrokerError(f"the timetable changes all the time: gave up after {TRIES} tries; try again")

    async def _read(self, shard: int) -> tuple[list[Record], int]:
        found = await self._coordinator.get(self._key(shard))
        if found is None:
            return [], 0
        value, version = found
        if self._versions.get(shard) == version:
            return self._shards[shard], version
        try:
            return _records.decode(value), version
        except (msgspec.MsgspecError, ConfigError, UnicodeDecodeError, RecursionError) as error:
            raise StoreError(
                f"{self._key(shard)} in the broker's shared state is no part of a timetable, or of a later release: "
                f"{error}"
            ) from error

    def _key(self, shard: int) -> str:
        return f"{self._prefix}:lines:{shard}"

    # -- the position

    async def position(self) -> tuple[Position | None, int]:
        """With its version, which is 0 when there is none."""
        found = await self._coordinator.get(f"{self._prefix}:position")
        if found is None:
            return None, 0
        try:
            return _position.decode(found[0]), found[1]
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self._prefix}:position in the broker's shared state cannot be read: {error}") from error

    async def move(self, position: Position, version: int) -> int | None:
        """Write the position; its new version, or `None` when somebody else has written it since `version`."""
        return await self._coordinator.put(f"{self._prefix}:position", msgspec.msgpack.encode(position), version)


def by_shard(names: Iterable[str]) -> list[list[str]]:
    """The names, those together that are kept together."""
    shards: dict[int, list[str]] = {}
    for name in names:
        shards.setdefault(_shard_of(name), []).append(name)
    return list(shards.values())


def _shard_of(name: str) -> int:
    return crc32(name.encode()) % SHARDS


def _encoded(records: Mapping[str, Record]) -> bytes | None:
    """`None`: nothing is left."""
    if not records:
        return None
    value = msgspec.msgpack.encode(list(records.values()))
    if len(records) > MOST_IN_SHARD or len(value) > MOST_BYTES:
        raise ConfigError(
            f"the timetable is full: about {SHARDS * MOST_IN_SHARD:,} schedules or {SHARDS * MOST_BYTES >> 20} MiB; "
            "remove some, or let one schedule start many tasks"
        )
    return value
