"""The sampled times of a process that runs tasks, what it has counted, and what it does now: noted by its slots, shared
with its supervisor through memory."""

from __future__ import annotations

import mmap
import struct
from collections import deque
from collections.abc import Callable
from zlib import crc32

import msgspec
from msgspec import Struct

from penstock.metrics.counts import Counted, Counts
from penstock.pressure.reports import Standing
from penstock.pressure.samples import BUSY_HALF_LIFE, Note, Samples, Window, packed, unpacked

SIZE = 1 << 16
EVERY = 1.0
"""Seconds between two looks at what was noted."""
LATE = 2.5 * EVERY
"""Seconds after which a process that tells of a run, and writes no more, does not get to."""
AT_ONCE = 8
"""About how many tasks of one batch are noted, each for as many as it stands for: a batch takes 5 ms, and to note all
would cost short tasks a tenth of their throughput."""
MOST_FRESH = 4096
_MOMENT = struct.Struct("<d")
_HEADER = struct.Struct("<dII")
"""When it was written (monotonic; the same clock in both processes), bytes of the rest, and their checksum."""


class Pulse(Struct, array_like=True):
    """What a process does now, and all that it has done."""

    busy: int
    standing: Standing | None
    counts: dict[str, Counted]


class Sheet:
    """One value in memory that a parent and its child share; written by one of them."""

    def __init__(self, size: int) -> None:
        # Anonymous and shared: it survives a fork, and leaves nothing behind.
        self._memory = mmap.mmap(-1, size)
        self.room = size - _HEADER.size

    def write(self, now: float, data: bytes) -> None:
        self._memory[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._memory, 0, now, len(data), crc32(data))

    def read(self) -> tuple[float, bytes] | None:
        """When it was written, and what; `None` before the first, and for one that is being written."""
        written, length, checksum = _HEADER.unpack_from(self._memory, 0)
        data = self._memory[_HEADER.size : _HEADER.size + min(length, self.room)]
        return (written, data) if length and crc32(data) == checksum else None


class Tally:
    """Written by one process, read by it or by its parent; made before the fork."""

    def __init__(self) -> None:
        self._samples, self._pulse = Sheet(SIZE), Sheet(SIZE)
        self.beat(0.0, Pulse(0, None, {}))
        self._awake = mmap.mmap(-1, _MOMENT.size)

    def write(self, now: float, samples: Samples) -> None:
        data, entries = packed(samples), samples.entries
        while len(data) > self._samples.room and entries:
            entries = sorted(entries, key=lambda entry: entry[2].seconds, reverse=True)[: len(entries) // 2]
            data = packed(Samples(entries, samples.busy, samples.heads))
        if len(data) <= self._samples.room:
            self._samples.write(now, data)

    def read(self, now: float) -> Samples | None:
        """`None` before the first, and for one that is being written."""
        found = self._samples.read()
        samples = unpacked(found[1]) if found else None
        if found is None or samples is None:
            return None
        written = found[0]
        # A process that sleeps writes nothing, and is not busy.
        faded = 0.5 ** (max(0.0, now - written - EVERY) / BUSY_HALF_LIFE)
        samples.busy = {queue: threads * faded for queue, threads in samples.busy.items()}
        return samples

    def wakes(self, now: float) -> None:
        """From now on it tells every second."""
        _MOMENT.pack_into(self._awake, 0, now)

    def sleeps(self) -> None:
        """Nothing runs, and nothing is told before it wakes."""
        _MOMENT.pack_into(self._awake, 0, 0.0)

    def beat(self, now: float, pulse: Pulse) -> None:
        data = msgspec.msgpack.encode(pulse)
        if len(data) <= self._pulse.room:
            self._pulse.write(now, data)

    def pulse(self, now: float) -> Pulse | None:
        """As it is by `now`: a process that does not get to write any more stands still, in what nobody knows if it has
        told of nothing; then the one that stands has no name."""
        found = self._pulse.read()
        if found is None:
            return None
        written, pulse = found[0], msgspec.msgpack.decode(found[1], type=Pulse)
        (awake,) = _MOMENT.unpack_from(self._awake, 0)
        silent = now - max(awake, written)
        if pulse.standing is None and awake and silent > LATE:
            pulse.busy, pulse.standing = 1, Standing("", 1, 1, silent)
        elif pulse.standing is not None:
            # Between two looks what runs may have ended: only who misses one is late.
            late = now - written if now - written > LATE else 0.0
            pulse.standing.still += late
            for run in pulse.standing.runs:
                run.seconds += late
        return pulse


class Sampling:
    """What the slots of this process note, and where it goes."""

    def __init__(self, tally: Tally, counts: Counts, standing: Callable[[float], Standing]) -> None:
        """`standing` tells what runs now."""
        self._tally = tally
        self._counts = counts
        self._standing = standing
        self._fresh: deque[Note] = deque(maxlen=MOST_FRESH)
        self._window = Window()
        self._looked: float | None = None
        self.note = self._fresh.append
        """From any thread."""

    def tick(self, now: float) -> None:
        """From one thread, often. `now` is monotonic."""
        if self._looked is None:
            self._looked = now
        elapsed = now - self._looked
        if elapsed >= EVERY:
            self._look(now, elapsed)

    def wakes(self, now: float) -> None:
        self._tally.wakes(now)

    def sleeps(self) -> None:
        self._tally.sleeps()

    def close(self, now: float) -> None:
        """The last look, at the end of this process."""
        self._tally.sleeps()
        self._look(now, max(EVERY, now - (self._looked or now)))

    def _look(self, now: float, elapsed: float) -> None:
        self._looked = now
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        if fresh:
            self._counts.took(fresh)
            self._window.pass_on(fresh, elapsed)
            self._tally.write(now, self._window.samples)
        standing = self._standing(now)
        told = standing if standing.busy else None
        self._tally.beat(now, Pulse(standing.busy, told, self._counts.read()))
