"""What this process starts, noted where it survives the process, for the engines of network servers.

The server cannot know what a worker had started when it died. Its own machine can: see `penstock.engines.presence`.
When the whole machine is gone, nobody is charged.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
import tempfile
from typing import Any

import msgspec

from penstock.delivery import Receipt
from penstock.engines.presence import MAX_SLOTS, Presence
from penstock.errors import StoreError

SIZE = 1024
"""Bytes of one note: a length, and the receipt as MessagePack. The longest ids fit: what is not noted is never
charged."""
_length = struct.Struct("<H")
_encode = msgspec.msgpack.encode
_NOTHING = bytes(_length.size)
_PAIR = struct.Struct("=qq")
_pack_pair = _PAIR.pack_into


class Starts:
    """The start notes of the workers of one server (`public` is its URL) on this machine."""

    size = SIZE
    """Bytes of one note."""

    def __init__(self, public: str) -> None:
        self._public = public
        self._presence: Presence | None = None
        self._map: mmap.mmap | None = None

    def note(self, slot: int, receipt: Receipt | None) -> None:
        """`Broker.record_start`."""
        notes = self._map
        if notes is None or slot >= MAX_SLOTS:
            return
        place = slot * SIZE
        if receipt is None:
            notes[place : place + 2] = _NOTHING
            return
        data = _encode(receipt)
        size = len(data)
        if size <= SIZE - 2:
            # The length last: a reader of half a note would charge a stranger.
            notes[place : place + 2] = _NOTHING
            notes[place + 2 : place + 2 + size] = data
            _length.pack_into(notes, place, size)

    def read(self, note: bytes) -> Receipt | None:
        """The receipt in a note; `None` for half a one."""
        return _read(note)

    def join(self, worker: str, slots: int) -> None:
        """This process is `worker` from now on. Raises `StoreError`."""
        try:
            self._map = self._open().open(worker, slots)
        except OSError as error:
            raise StoreError(f"{self._folder()}: {error}: workers note there what they start") from error

    def started(self, worker: str) -> set[Receipt]:
        """The receipts of what the worker had started, and not ended. None for a worker of another machine."""
        return {receipt for note in self._open().notes(worker) if (receipt := self.read(note)) is not None}

    def dead(self) -> list[str]:
        """Workers of this machine whose process has ended, and that nobody has buried."""
        presence = self._open()
        return [worker for worker in presence.files() if presence.is_dead(worker)]

    def remove(self, worker: str) -> None:
        """It left, or is buried."""
        self._open().remove(worker)

    def forked(self) -> None:
        """In a forked child: the parent's worker is not ours. Its file stays locked as long as the parent lives, and
        our copies of its descriptors are closed, so that no longer."""
        if self._presence is not None:
            self._presence.close()
        self._presence = self._map = None

    def close(self) -> None:
        self.forked()

    def folder(self) -> str:
        """Where an engine may keep notes of its own. Raises `StoreError`."""
        self._open()
        return self._folder()

    def _folder(self) -> str:
        name = hashlib.blake2b(self._public.encode(), digest_size=8).hexdigest()
        return os.path.join(tempfile.gettempdir(), f"penstock-{os.getuid()}", name)

    def _open(self) -> Presence:
        if self._presence is None:
            folder = self._folder()
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for path in (os.path.dirname(folder), folder):
                _check_own(path)
            self._presence = Presence(folder, self.size)
        return self._presence


class PairStarts(Starts):
    """The same for an engine whose receipts are two numbers, in the shortest time."""

    size = _PAIR.size

    def note(self, slot: int, receipt: Receipt | None) -> None:
        notes = self._map
        if notes is not None and slot < MAX_SLOTS:
            token, row = receipt or (0, 0)
            _pack_pair(notes, slot << 4, token, row)

    def read(self, note: bytes) -> Receipt | None:
        token, row = _PAIR.unpack(note)
        return (token, row) if token else None


def _check_own(path: str) -> None:
    """A folder in a place that all may write to: it must be ours, or anybody could make up what was started."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreError(f"{path} is not a folder of this user: remove it, or set TMPDIR to a private folder")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)


def _read(note: bytes) -> Receipt | None:
    (size,) = _length.unpack_from(note)
    if not 0 < size <= SIZE - 2:
        return None
    try:
        receipt: tuple[Any, ...] = msgspec.msgpack.decode(note[2 : 2 + size], type=tuple)
    except msgspec.DecodeError:
        return None
    return receipt
