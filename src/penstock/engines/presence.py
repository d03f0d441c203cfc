"""The worker processes that live on this machine: a locked file each, which is also where they note what they start.

The lock dies with the process, so anybody can tell a dead worker at once, across PID namespaces; the notes (one of a
fixed size for each slot) stay readable, so that only what had been started is charged with an attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

from msgspec import Struct

from penstock.errors import StoreError

MAX_SLOTS = 4096


class WorkerFile(Struct):
    """The file of a worker of this process."""

    path: str
    file: int
    map: mmap.mmap


class Presence:
    """One folder of workers. `size` is the bytes of one slot's note; all zero bytes mean that it runs nothing."""

    def __init__(self, folder: str, size: int) -> None:
        self._folder = folder
        self._size = size
        self._mine: dict[str, WorkerFile] = {}

    def open(self, worker: str, slots: int) -> mmap.mmap:
        """Create and lock the file of a worker of this process; returns its map. Raises `OSError`."""
        path = self._path(worker)
        unnamed = os.path.join(self._folder, f"joining-{os.path.basename(worker)}")
        file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            reserve(file, self._size * min(max(slots, 1), MAX_SLOTS))
        except OSError:
            os.unlink(unnamed)
            os.close(file)
            raise
        os.rename(unnamed, path)  # only now: a worker's file without its lock is a dead worker's
        self._mine[worker] = WorkerFile(path, file, mmap.mmap(file, 0))
        return self._mine[worker].map

    def is_dead(self, worker: str) -> bool:
        """Its process has ended. A worker without a file never registered here: only time tells. Raises
        `StoreError` where nobody can look, such as on a disk that was mounted read-only since it is broken."""
        if worker in self._mine:
            return False
        try:
            file = os.open(self._path(worker), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(
                f"{self._path(worker)} cannot be opened ({error.strerror}): check its rights, and whether its disk is "
                "mounted read-only (dmesg)"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True

    def notes(self, worker: str) -> list[bytes]:
        """What the worker's slots have started and not noted as ended."""
        mine = self._mine.get(worker)
        if mine is not None:
            data = bytes(mine.map)
        else:
            try:
                with open(self._path(worker), "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                return []
        size = self._size
        slots = (data[start : start + size] for start in range(0, len(data) - size + 1, size))
        return [note for note in slots if any(note)]

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


def reserve(file: int, size: int) -> None:
    """Make `file` at least `size` bytes long, and sure of its space: a write to mapped memory that finds no space left
    kills the process. Raises `OSError` (ENOSPC) instead."""
    if os.fstat(file).st_size >= size:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.write(file, bytes(size))  # macOS
