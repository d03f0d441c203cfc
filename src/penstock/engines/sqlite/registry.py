"""The workers that live: a locked file each, which is also where they note what they start.

The lock dies with the process, so anybody can tell a dead worker at once, across PID namespaces; the notes (one pair
of token and row for each slot) stay readable, so that only what had been started is charged with an attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct

from msgspec import Struct

from penstock.delivery import Receipt
from penstock.engines.sqlite.faults import translate
from penstock.engines.sqlite.files import reserve

_MARK = struct.Struct("=qq")
_pack_mark = _MARK.pack_into
MAX_SLOTS = 4096


class WorkerFile(Struct):
    """The file of a worker of this process."""

    path: str
    file: int
    map: mmap.mmap


class Registry:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._mine: dict[str, WorkerFile] = {}

    def open(self, worker: str, slots: int) -> mmap.mmap:
        """Create and lock the file of a worker of this process; returns its map. Raises `StoreFull`."""
        path = self._path(worker)
        unnamed = os.path.join(self._folder, f"joining-{os.path.basename(worker)}")
        file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            reserve(file, _MARK.size * min(max(slots, 1), MAX_SLOTS))
        except OSError as error:
            os.unlink(unnamed)
            os.close(file)
            raise translate(error, path) from error
        os.rename(unnamed, path)  # only now: a worker's file without its lock is a dead worker's
        self._mine[worker] = WorkerFile(path, file, mmap.mmap(file, 0))
        return self._mine[worker].map

    def is_dead(self, worker: str) -> bool:
        """Its process has ended. A worker without a file never registered: only time tells."""
        if worker in self._mine:
            return False
        try:
            file = os.open(self._path(worker), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True

    def started(self, worker: str) -> set[tuple[int, int]]:
        """The (token, row) pairs that the worker has started and not noted as ended."""
        mine = self._mine.get(worker)
        if mine is not None:
            notes = bytes(mine.map)
        else:
            try:
                with open(self._path(worker), "rb") as file:
                    notes = file.read()
            except FileNotFoundError:
                return set()
        whole = len(notes) - len(notes) % _MARK.size
        return {pair for pair in _MARK.iter_unpack(notes[:whole]) if pair[0]}

    def remove(self, worker: str) -> None:
        """Forget a worker that left or is buried."""
        mine = self._mine.pop(worker, None)
        if mine is not None:
            os.close(mine.file)
        with contextlib.suppress(FileNotFoundError):  # never registered, or buried by two at once
            os.unlink(self._path(worker))

    def mine(self) -> list[str]:
        return list(self._mine)

    def files(self) -> list[str]:
        """The ids of all workers that have a file."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:  # somebody deleted the folder: what is left is time
            return []
        return [name.removeprefix("worker-") for name in names if name.startswith("worker-")]

    def _path(self, worker: str) -> str:
        return os.path.join(self._folder, "worker-" + os.path.basename(worker))

    def close(self) -> None:
        for worker in self.mine():
            mine = self._mine.pop(worker)
            mine.map.close()  # it holds a descriptor, and so the lock, of its own
            os.close(mine.file)


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
