"""The sampled times of a process that runs tasks: noted by its slots, shared with its supervisor through memory."""

from __future__ import annotations

import mmap
import struct
from collections import deque
from zlib import crc32

from penstock.pressure.samples import BUSY_HALF_LIFE, Key, Note, Samples, Window, packed, unpacked

SIZE = 1 << 16
EVERY = 1.0
"""Seconds between two looks at what was noted."""
AT_ONCE = 8
"""About how many tasks of one batch are noted, each for as many as it stands for: a batch takes 5 ms, and to note all
would cost short tasks a tenth of their throughput."""
MOST_FRESH = 4096
_HEADER = struct.Struct("<dII")
"""When it was written (monotonic; the same clock in both processes), bytes of the rest, and their checksum."""


class Tally:
    """Written by one process, read by it or by its parent; made before the fork."""

    def __init__(self) -> None:
        # Anonymous and shared: it survives a fork, and leaves nothing behind.
        self._memory = mmap.mmap(-1, SIZE)

    def write(self, now: float, samples: Samples) -> None:
        data, entries = packed(samples), samples.entries
        while len(data) > SIZE - _HEADER.size and entries:
            entries = sorted(entries, key=lambda entry: entry[2].seconds, reverse=True)[: len(entries) // 2]
            data = packed(Samples(entries, samples.busy, samples.expired))
        if len(data) > SIZE - _HEADER.size:
            return
        self._memory[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._memory, 0, now, len(data), crc32(data))

    def read(self, now: float) -> Samples | None:
        """`None` before the first, and for one that is being written."""
        written, length, checksum = _HEADER.unpack_from(self._memory, 0)
        data = self._memory[_HEADER.size : _HEADER.size + min(length, SIZE)]
        if not length or crc32(data) != checksum:
            return None
        samples = unpacked(data)
        if samples is not None:
            # A process that sleeps writes nothing, and is not busy.
            faded = 0.5 ** (max(0.0, now - written - EVERY) / BUSY_HALF_LIFE)
            samples.busy = {queue: threads * faded for queue, threads in samples.busy.items()}
        return samples


class Sampling:
    """What the slots of this process note, and where it goes."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._fresh: deque[Note] = deque(maxlen=MOST_FRESH)
        self._late: deque[Key] = deque(maxlen=MOST_FRESH)
        self._window = Window()
        self._looked: float | None = None
        self.note = self._fresh.append
        """From any thread."""

    def expired(self, queue: str, task: str) -> None:
        """A call was not run, since it was too late. From any thread."""
        self._late.append((queue, task))

    def tick(self, now: float) -> None:
        """From one thread, often. `now` is monotonic."""
        if self._looked is None:
            self._looked = now
        elapsed = now - self._looked
        if elapsed < EVERY:
            return
        self._looked = now
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        late = [self._late.popleft() for _ in range(len(self._late))]
        for queue, task in late:
            self._window.expire(queue, task)
        if fresh or late:
            self._window.pass_on(fresh, elapsed)
            self._tally.write(now, self._window.samples)
