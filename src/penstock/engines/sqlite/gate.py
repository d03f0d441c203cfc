"""The write lock: an flock around every write transaction, with a deadline and with fairness.

SQLite's own busy handler sleeps and starves; a blocking flock cannot time out, and would freeze everybody behind a
stopped holder. So nobody blocks in it: who finds it taken raises a flag in a shared map and sleeps on a FIFO of its
own; who releases it picks the next waiter and wakes it. Small publishes ("light") go before worker steps and bulk
("heavy"), up to LIGHT_RUN in a row, and newcomers stand behind a hand-over that is under way. Measured in
docs/design.md ("The write lock").
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import struct
import time

from penstock.engines.presence import reserve
from penstock.engines.sqlite.board import PLACES
from penstock.errors import BrokerUnavailable

GIVE_WAY, TRY_AGAIN = 3, 5
"""Milliseconds: how long a newcomer stands behind a hand-over; how long a waiter sleeps when nobody wakes it."""
LIGHT_RUN = 8
"""Light waiters served in a row while a heavy one waits."""

_TRY = fcntl.LOCK_EX | fcntl.LOCK_NB
_WRITER = struct.Struct("=q")
# The map: flags of light waiters, of heavy ones, then bytes that are written only by who holds the lock.
_HEAVY, _END = PLACES, 2 * PLACES
_HANDED, _RUN, _NEXT_LIGHT, _NEXT_HEAVY, _LONE, _PID = _END, _END + 1, _END + 2, _END + 3, _END + 4, _END + 8
_SIZE = _END + 16


class Gate:
    def __init__(self, path: str, place: int) -> None:
        self._path = path
        self._place = place
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        reserve(self._lock, _SIZE)
        self._map = mmap.mmap(self._lock, _SIZE)
        self._map[place] = self._map[_HEAVY + place] = 0
        self._fifos: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(self._fifo(place), select.POLLIN)
        self._pid = os.getpid()

    def acquire(self, timeout: float, *, heavy: bool = False) -> None:
        """Hold the lock, or raise `BrokerUnavailable` naming its holder after `timeout` seconds."""
        flags = self._map
        if flags[_HANDED]:
            self._wait(self._place + _HEAVY if heavy else self._place, timeout, GIVE_WAY)
        elif not self._try():
            self._wait(self._place + _HEAVY if heavy else self._place, timeout, 0)
        flags[_HANDED] = 0
        _WRITER.pack_into(flags, _PID, self._pid)

    def release(self) -> None:
        flags = self._map
        _WRITER.pack_into(flags, _PID, 0)
        chosen = self._choose() if flags.find(b"\1", 0, _END) >= 0 else -1
        if chosen < 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            return
        flags[chosen] = 0
        if chosen < _HEAVY or flags.find(b"\1", 0, _END) >= 0:
            flags[_HANDED] = 1
        else:  # a lone heavy waiter: two workers alternating pay a switch each time, so others may barge 3 times of 4
            flags[_LONE] = (flags[_LONE] + 1) & 3
            flags[_HANDED] = not flags[_LONE]
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._wake(chosen & (PLACES - 1))

    def writer(self) -> int:
        """The process that holds the lock now; 0 for nobody."""
        pid: int = _WRITER.unpack_from(self._map, _PID)[0]
        return pid

    def _try(self) -> bool:
        try:
            fcntl.flock(self._lock, _TRY)
        except BlockingIOError:
            return False
        return True

    def _wait(self, flag: int, timeout: float, first: int) -> None:
        if timeout <= 0:
            raise BrokerUnavailable(self._describe(timeout))
        flags = self._map
        deadline = time.monotonic() + timeout
        flags[flag] = 1
        try:
            if not first and self._try():
                return  # it was released before the flag was up
            patience = first or TRY_AGAIN
            while True:
                if self._poll.poll(patience):
                    self._drain()
                if self._try():
                    return
                flags[flag] = 1  # whoever woke us took it down, and another was faster
                patience = TRY_AGAIN
                if self._try():
                    return
                if time.monotonic() >= deadline:
                    raise BrokerUnavailable(self._describe(timeout))
        finally:
            flags[flag] = 0

    def _choose(self) -> int:
        """The flag of the next in turn; -1 when who waited has just given up."""
        flags = self._map
        run = flags[_RUN]
        light, heavy = flags.find(b"\1", 0, _HEAVY), flags.find(b"\1", _HEAVY, _END)
        if light >= 0 and (run < LIGHT_RUN or heavy < 0):
            later = flags.find(b"\1", flags[_NEXT_LIGHT], _HEAVY)
            light = later if later >= 0 else light
            flags[_RUN] = min(run + 1, 255)
            flags[_NEXT_LIGHT] = min(light + 1, 255)
            return light
        if heavy < 0:
            return -1
        later = flags.find(b"\1", _HEAVY + flags[_NEXT_HEAVY], _END)
        heavy = later if later >= 0 else heavy
        flags[_RUN] = 0
        flags[_NEXT_HEAVY] = min(heavy - _HEAVY + 1, 255)
        return heavy

    def _fifo(self, place: int) -> int:
        fifo = self._fifos.get(place)
        if fifo is None:
            fifo = self._fifos[place] = open_fifo(f"{self._path}-{place}")
        return fifo

    def _wake(self, place: int) -> None:
        # It has been woken often enough, or there is no descriptor or no folder left: it looks again by itself, and
        # what was committed must not end in an error.
        with contextlib.suppress(OSError):
            os.write(self._fifo(place), b"\0")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifos[self._place], 64)

    def _describe(self, timeout: float) -> str:
        pid = self.writer()
        holder = f"process {pid} ({process_state(pid)})" if pid else "a process that has not said who it is"
        return f"the write lock {self._path} was not free within {timeout:.3g} s; it is held by {holder}"

    def close(self) -> None:
        self._map.close()
        os.close(self._lock)
        for fifo in self._fifos.values():
            os.close(fifo)


class SoleGate:
    """Where nobody else can have the database open."""

    def acquire(self, timeout: float, *, heavy: bool = True) -> None:
        pass

    def release(self) -> None:
        pass

    def writer(self) -> int:
        return os.getpid()

    def close(self) -> None:
        pass


def open_fifo(path: str) -> int:
    """A FIFO, opened for both ends so that neither opening nor a lone writer ever blocks or fails."""
    if not os.path.exists(path):
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def process_state(pid: int) -> str:
    """A word for the state of a local process, as /proc tells it: for messages, and to notice stopped children."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            letter = stat.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "not visible from here"
    return {"T": "stopped", "t": "stopped by a debugger", "Z": "dead", "D": "waiting for the disk"}.get(
        letter, "running"
    )
