"""A stopped holder of the lock is killed, by a thread that waits for nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import cast

import pytest

from penstock.engine import Engine
from penstock.worker import rescue
from penstock.worker.child import Child
from penstock.worker.marks import Mark
from penstock.worker.tally import Tally


class Holding:
    """Only tells who holds its lock."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def writer_pid(self) -> int | None:
        return self.pid


def test_only_a_stopped_holder_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "TICK", 0.02)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = Child(1, "w", sleeper.pid, Mark(), Tally(), -1, 0.0)
    watch = rescue.Rescue(cast(Engine, Holding(sleeper.pid)), {sleeper.pid: child}.get)
    watch.start()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            sleeper.wait(0.2)
        os.kill(sleeper.pid, signal.SIGSTOP)
        assert sleeper.wait(10) == -signal.SIGKILL
    finally:
        watch.close()
        sleeper.kill()
        sleeper.communicate()
