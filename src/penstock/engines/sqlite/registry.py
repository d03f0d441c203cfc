"""The workers of one database that live on this machine, and the (token, row) pairs that they have started."""

from __future__ import annotations

import mmap
import struct
from typing import Protocol

from penstock.delivery import Receipt
from penstock.engines.presence import Presence
from penstock.engines.sqlite.faults import translate

_MARK = struct.Struct("=qq")
_pack_mark = _MARK.pack_into


class Registered(Protocol):
    """What a store knows of the workers that have joined it."""

    def open(self, worker: str, slots: int) -> mmap.mmap | None: ...
    def is_dead(self, worker: str) -> bool: ...
    def started(self, worker: str) -> set[tuple[int, int]]: ...
    def files(self) -> list[str]: ...
    def remove(self, worker: str) -> None: ...
    def close(self) -> None: ...


class Registry(Presence):
    def __init__(self, folder: str) -> None:
        super().__init__(folder, _MARK.size)

    def open(self, worker: str, slots: int) -> mmap.mmap:
        """As `Presence.open`; raises `StoreFull`."""
        try:
            return super().open(worker, slots)
        except OSError as error:
            raise translate(error, self._path(worker)) from error

    def started(self, worker: str) -> set[tuple[int, int]]:
        """The (token, row) pairs that the worker has started and not noted as ended."""
        return {pair for pair in map(_MARK.unpack, self.notes(worker)) if pair[0]}


class StartNotes:
    """Where the worker of this process notes what it starts. It outlives a fork: the child's worker puts its own map
    in."""

    __slots__ = ("map",)

    def __init__(self) -> None:
        self.map: mmap.mmap | None = None

    def note(self, slot: int, receipt: Receipt | None) -> None:
        """`Broker.record_start`: on the hot path, a store to memory that survives the process."""
        if self.map is not None:
            token, row = receipt or (0, 0)
            _pack_mark(self.map, slot << 4, token, row)
