"""A child process of the supervisor: how it is started, how it is told to stop, and what its end means."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from penstock.pool import PoolClass, Traits
from penstock.worker.crew import Crew
from penstock.worker.log import name_log
from penstock.worker.marks import Mark
from penstock.worker.settings import Settled
from penstock.worker.tally import Tally
from penstock.worker.watch import COLD, WARM

if TYPE_CHECKING:
    from penstock.app import Penstock

EXIT_RECYCLE = 73
"""It has run enough, or grown too large, and is to be replaced."""

Run = Callable[[str, Mark, Tally, int], int]
"""What a child does, given its id as a worker, its mark and its tally, and where it hears its supervisor. Returns its
exit code."""

log = logging.getLogger("penstock.worker")


class Child:
    """A running child, as its supervisor sees it."""

    def __init__(
        self, number: int, worker: str, pid: int, mark: Mark, tally: Tally, commands: int, started: float
    ) -> None:
        self.number = number
        self.worker = worker
        self.pid = pid
        self.mark = mark
        self.tally = tally
        self.commands = commands
        self.started = started
        self._halted: float | None = None

    @property
    def name(self) -> str:
        return f"child {self.number} (pid {self.pid})"

    def warm(self) -> None:
        self._tell(WARM)

    def cold(self) -> None:
        self._tell(COLD)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just been collected
            os.kill(self.pid, signal.SIGKILL)

    def stopped(self) -> bool:
        """It is suspended (SIGSTOP, a debugger): it cannot even know that its leases run out."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False  # gone, or no /proc here
        return stat.rpartition(b")")[2].split()[0] in (b"T", b"t")

    def halted(self, now: float) -> float | None:
        """For how many seconds it has been stopped, since that was first seen here; `None`: it is not."""
        if not self.stopped():
            self._halted = None
            return None
        if self._halted is None:
            self._halted = now
        return now - self._halted

    def _tell(self, command: bytes) -> None:
        try:
            os.write(self.commands, command)
        except OSError:
            log.debug("%s is gone already", self.name)


def fork_child(run: Run, number: int, siblings: Sequence[int], now: float) -> Child:
    """Start a child that does `run`. `siblings` are the supervisor's ends of the other children's pipes, which a child
    must not hold open: it could not see the supervisor's death."""
    reading, writing = os.pipe()
    worker, mark, tally = secrets.token_hex(16), Mark(), Tally()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(reading)
        return Child(number, worker, pid, mark, tally, writing, now)
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for descriptor in (writing, *siblings):
            os.close(descriptor)
        code = run(worker, mark, tally, reading)
    except BaseException:
        log.exception("child %d failed", number)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        # Not `sys.exit`: what the supervisor's callers have on their stack is not ours to unwind.
        os._exit(code)


def run_crew(
    app: Penstock,
    settings: Settled,
    pool: PoolClass,
    traits: Traits,
    number: int,
    worker: str,
    mark: Mark,
    tally: Tally,
    commands: int,
) -> int:
    """What a child does that runs tasks."""
    stopping = own_signals()
    name_log(f"child-{number}")
    crew = Crew(app, settings, worker, traits, mark, tally, commands=commands)
    signal.signal(signal.SIGTERM, lambda *_: crew.stop())
    signal.signal(signal.SIGQUIT, lambda *_: crew.cold())
    if stopping:
        crew.stop()
    crew.run(pool)
    return EXIT_RECYCLE if crew.bench.recycle else 0


def own_signals() -> list[int]:
    """Take off the supervisor's handlers, which are not a child's. Returns the list to which signals to stop are
    added until there is something to stop."""
    stopping: list[int] = []
    for caught in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(caught, lambda number, _: stopping.append(number))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        # Ctrl-C goes to the whole group; the supervisor tells us. No SIG_IGN: programs that tasks start would inherit
        # it.
        signal.signal(ignored, _ignore)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return stopping


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
