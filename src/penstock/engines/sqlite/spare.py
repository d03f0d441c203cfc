"""Space kept for the way out of a full disk: settling needs some, and settling is what frees it.

While there is space, a file of SIZE bytes holds on to it. When a step of a worker finds the disk full, the file is
given up, and publishes are refused until it can be made again: what was freed is for ending work, not for more of it.
"""

from __future__ import annotations

import os
import time

from penstock.engines.presence import reserve
from penstock.engines.sqlite.board import Board
from penstock.errors import StoreFull

SIZE = 8 << 20
"""Bytes: the write-ahead log between two checkpoints, and as much again for pages of results."""
TRY_AGAIN = 1.0
"""Seconds between two tries to make it again."""


class Spare:
    def __init__(self, path: str, board: Board) -> None:
        self._path = path
        self._board = board
        self._tried = 0.0
        if not os.path.exists(path):
            board.set_space_low(not self._make())  # a disk that is full already can still be drained

    def check(self) -> None:
        """Before new work is accepted: raise `StoreFull` while the spare space is given up and cannot be had back."""
        if not self._board.space_low():
            return
        now = time.monotonic()
        if now - self._tried >= TRY_AGAIN:
            self._tried = now
            if self.restore():
                return
        raise StoreFull(f"no space left beside {self._path}: free some; nothing was done, and settling goes on")

    def give_up(self) -> bool:
        """Free the space for a settlement; `False` when that was done before."""
        self._board.set_space_low(True)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True

    def restore(self) -> bool:
        """Take the space back if it is there."""
        if self._board.space_low():
            if not self._make():
                return False
            self._board.set_space_low(False)
        return True

    def _make(self) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            reserve(file, SIZE)
        except OSError:
            os.unlink(self._path)
            return False
        finally:
            os.close(file)
        return True
