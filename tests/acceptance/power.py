"""A disk that forgets: an SQLite VFS that knows which bytes were synced, and which were only written.

Like SQLite's own crash tests. Writes go through to real files at once, so that processes and readers see them; beside
that, each file has a durable image, to which a write is added when the file is next synced. At a cut, what was not
synced is lost: all of it, or (`torn`) any of its 512-byte sectors in any combination, as a disk that reorders may leave
it. The shared-memory file and the locks are not on the disk, and pass through.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import apsw

SECTOR = 512
Image = dict[str, bytes]
"""What a fresh machine would find: contents by file name."""


class Record:
    """One file: what is durable, and what has been done since, in order. `None` as data truncates."""

    def __init__(self) -> None:
        self.durable: bytearray | None = None
        self.pending: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        content = self.durable = self.durable or bytearray()
        for offset, data in self.pending:
            apply(content, offset, data)
        self.pending.clear()

    def image(self, chance: Callable[[], bool]) -> bytes | None:
        """The durable bytes, and each pending sector for which `chance` says so."""
        if self.durable is None and not self.pending:
            return None
        content = bytearray(self.durable or b"")
        for offset, data in self.pending:
            if data is None:
                if chance():
                    apply(content, offset, None)
                continue
            for start in range(0, len(data), SECTOR):
                if chance():
                    apply(content, offset + start, data[start : start + SECTOR])
        return None if self.durable is None and not content else bytes(content)


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """The VFS `name`. `watch` is called just before and just after each sync takes effect."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.watch: Callable[[], object] = lambda: None
        self.before_own_sync: Callable[[], object] = lambda: None
        self._files: dict[str, Record] = {}
        self._lock = threading.Lock()

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        with self._lock:
            self._files.pop(filename, None)

    def record(self, path: str) -> Record:
        with self._lock:
            return self._files.setdefault(path, Record())

    def wrote(self, path: str, offset: int, data: bytes | None) -> None:
        record = self.record(path)
        with self._lock:
            record.pending.append((offset, data))

    def sync(self, path: str) -> None:
        self.watch()
        record = self.record(path)
        with self._lock:
            record.sync()
        self.watch()

    def sync_descriptor(self, file: int) -> None:
        """For `Settings.sync`: the engine's own fdatasync, outside of its lock."""
        self.before_own_sync()
        self.sync(os.readlink(f"/proc/self/fd/{file}"))

    def cut(self) -> Image:
        """The power goes: only what was synced is there."""
        return self._image(lambda: False)

    def torn(self, rng: random.Random) -> Image:
        """The power goes while the disk writes: any part of what was not synced may be there as well."""
        share = rng.random()
        return self._image(lambda: rng.random() < share)

    def _image(self, chance: Callable[[], bool]) -> Image:
        with self._lock:
            found = {os.path.basename(path): record.image(chance) for path, record in self._files.items()}
        return {name: content for name, content in found.items() if content is not None}


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        # Temporary files have no name; they are nobody's promise.
        self._path = path if path and os.path.exists(path) else None
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self._path:
            self._disk.wrote(self._path, offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        if self._path:
            self._disk.wrote(self._path, size, None)

    def xSync(self, flags: int) -> None:
        if self._path:
            self._disk.sync(self._path)


def restore(image: Image, folder: Path) -> Path:
    """Write an image into a new folder; the path of its database."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)
    return folder / "queue.db"
