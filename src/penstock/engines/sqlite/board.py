"""A small shared memory beside the database: who waits for work, and who for results.

Each engine holds one of 256 places (by a lock that dies with its process). Bytes that say "I wait" are set before a
last look at the database and cleared by whoever rings, so that no wake-up is lost, and nobody rings for nothing.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from penstock.engines.presence import reserve
from penstock.errors import BrokerUnavailable

PLACES = 256
_WORK, _RESULTS, _MASKS = 0, PLACES, 2 * PLACES
_SPACE_LOW = _MASKS + 8 * PLACES
SIZE = _SPACE_LOW + 8
_MASK = struct.Struct("=Q")


class Board:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        reserve(self._file, SIZE)
        self._map = mmap.mmap(self._file, SIZE)
        self._place_file = -1
        try:
            self.place = self._take_place(path)
        except BaseException:
            self._map.close()
            os.close(self._file)
            raise
        for offset in (_WORK, _RESULTS):
            self._map[offset + self.place] = 0

    def _take_place(self, path: str) -> int:
        # flock, not lockf: two engines of one process must not get the same place.
        for place in range(PLACES):
            file = os.open(f"{path}-{place}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            self._place_file = file
            return place
        raise BrokerUnavailable(f"more than {PLACES} processes use this database at once ({path})")

    def wait_for_work(self, queues: int) -> None:
        """This process waits for work in the queues of the bit set `queues` (`mask`)."""
        _MASK.pack_into(self._map, _MASKS + 8 * self.place, queues)
        self._map[_WORK + self.place] = 1

    def stop_waiting_for_work(self) -> None:
        self._map[_WORK + self.place] = 0

    def take_work_waiter(self, queues: int, start: int = 0) -> int:
        """The next place from `start` on that waits for one of `queues`, now no longer marked; -1 when there is
        none."""
        place = self._map.find(b"\1", _WORK + start, _RESULTS)
        while place >= 0:
            place -= _WORK
            if _MASK.unpack_from(self._map, _MASKS + 8 * place)[0] & queues:
                self._map[_WORK + place] = 0
                return place
            place = self._map.find(b"\1", _WORK + place + 1, _RESULTS)
        return -1

    def wait_for_results(self, waiting: bool) -> None:
        self._map[_RESULTS + self.place] = waiting

    def take_result_waiter(self, start: int = 0) -> int:
        place = self._map.find(b"\1", _RESULTS + start, _MASKS)
        if place < 0:
            return -1
        self._map[place] = 0
        return place - _RESULTS

    def space_low(self) -> bool:
        """The disk was full, and the spare space is given up (`spare`)."""
        return bool(self._map[_SPACE_LOW])

    def set_space_low(self, low: bool) -> None:
        self._map[_SPACE_LOW] = low

    def close(self) -> None:
        self._map.close()
        os.close(self._file)
        os.close(self._place_file)


def mask(queues: list[int]) -> int:
    """A bit set of queue ids; ids 64 apart share a bit, which costs a needless wake-up and nothing more."""
    bits = 0
    for queue in queues:
        bits |= 1 << (queue & 63)
    return bits
