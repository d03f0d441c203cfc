"""Start marks of runs with a hard limit, in memory that a child shares with its supervisor.

A function that holds the interpreter's lock keeps the child's own watchdog from running; the supervisor still reads
the mark, kills the child, and ends the task in its stead.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

import msgspec
from msgspec import Struct

from penstock.broker import Key
from penstock.delivery import Delivery, Receipt

SIZE = 1024
_HEADER = struct.Struct("<ddH")
"""When it started (monotonic; the same clock in both processes), its limit in seconds, bytes of the rest."""


Noted = tuple[tuple[Any, ...], Key]


class Started(Struct, frozen=True):
    """A run with a hard limit. `receipt` is `None` where it could not be noted."""

    started: float
    limit: float
    receipt: Receipt | None
    key: Key = ""


class Mark:
    """One run at a time."""

    def __init__(self) -> None:
        # Anonymous and shared: it survives a fork, and leaves nothing behind.
        self._memory = mmap.mmap(-1, SIZE)

    def set(self, started: float, limit: float, delivery: Delivery) -> None:
        try:
            receipt = msgspec.msgpack.encode((delivery.receipt, delivery.key))
        except (TypeError, OverflowError):
            receipt = b""
        if len(receipt) > SIZE - _HEADER.size:
            receipt = b""
        memory = self._memory
        memory[_HEADER.size : _HEADER.size + len(receipt)] = receipt
        # The header last: a limit of 0 means that there is no mark.
        _HEADER.pack_into(memory, 0, started, limit, len(receipt))

    def clear(self) -> None:
        _HEADER.pack_into(self._memory, 0, 0.0, 0.0, 0)

    def get(self) -> Started | None:
        started, limit, length = _HEADER.unpack_from(self._memory, 0)
        if not limit:
            return None
        if length:
            try:
                noted = msgspec.msgpack.decode(self._memory[_HEADER.size : _HEADER.size + length], type=Noted)
            except msgspec.DecodeError:
                return Started(started, limit, None)
            return Started(started, limit, *noted)
        return Started(started, limit, None)
