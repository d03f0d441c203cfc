"""Wake-ups without polling: one FIFO per process and purpose, rung when the board says that its owner waits."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Protocol

from penstock.engines.sqlite.board import Board
from penstock.engines.sqlite.gate import open_fifo


class Bell:
    """The end that waits."""

    def __init__(self, path: str) -> None:
        self._fifo = open_fifo(path)
        self.empty()

    def wait(self, seconds: float) -> bool:
        """Sleep until somebody rings, for `seconds` at most; tells whether somebody did."""
        poll = select.poll()  # a new one: several threads may wait, and one object cannot be shared
        poll.register(self._fifo, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            return False
        with contextlib.suppress(BlockingIOError):  # another thread took it
            os.read(self._fifo, 1)  # one ring wakes one thread
        return True

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # it rings already, or is closed
            os.write(self._fifo, b"\0")

    def empty(self) -> None:
        """Forget old rings."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifo, 4096)

    def close(self) -> None:
        fifo, self._fifo = self._fifo, -1
        os.close(fifo)


class Rings(Protocol):
    """Who is told of what was committed. None of it blocks, or raises."""

    def work(self, queues: int, tasks: int) -> None: ...
    def results(self) -> None: ...
    def close(self) -> None: ...


class Ringer:
    """The end that wakes other processes. Descriptors are kept: opening a FIFO costs more than writing to it."""

    def __init__(self, folder: str, board: Board) -> None:
        self._folder = folder
        self._board = board
        self._fifos: dict[str, int] = {}

    def work(self, queues: int, tasks: int) -> None:
        """Wake up to `tasks` processes that wait for work in `queues`."""
        place = self._board.take_work_waiter(queues)
        while place >= 0:
            self._ring(work_bell(place))
            tasks -= 1
            if tasks <= 0:
                return
            place = self._board.take_work_waiter(queues, place + 1)

    def results(self) -> None:
        """Wake all processes that wait for results."""
        place = self._board.take_result_waiter()
        while place >= 0:
            self._ring(result_bell(place))
            place = self._board.take_result_waiter(place + 1)

    def _ring(self, name: str) -> None:
        # It rings already, or cannot be rung (no descriptor, no folder): who waits looks again by itself, and what was
        # committed must not end in an error.
        with contextlib.suppress(OSError):
            fifo = self._fifos.get(name)
            if fifo is None:
                fifo = self._fifos[name] = open_fifo(os.path.join(self._folder, name))
            os.write(fifo, b"\0")

    def close(self) -> None:
        # Another thread may still ring: it must not find the number of a descriptor that is somebody else's by then.
        fifos, self._fifos = self._fifos, {}
        for fifo in fifos.values():
            os.close(fifo)


def work_bell(place: int) -> str:
    return f"work-{place}"


def result_bell(place: int) -> str:
    return f"results-{place}"
