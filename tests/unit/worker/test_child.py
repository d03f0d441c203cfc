"""A child as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from penstock.worker.child import Child
from penstock.worker.marks import Mark
from penstock.worker.tally import Tally


@pytest.mark.skipif(not os.path.exists("/proc"), reason="who is stopped is read from /proc")
def test_how_long_a_child_is_stopped_is_counted_from_when_it_is_seen() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child = Child(1, "w", process.pid, Mark(), Tally(), -1, 0.0)
    try:
        assert child.halted(10.0) is None
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert (child.halted(20.0), child.halted(27.0)) == (0.0, 7.0)
        os.kill(process.pid, signal.SIGCONT)
        os.waitpid(process.pid, os.WCONTINUED)
        assert child.halted(30.0) is None
    finally:
        process.kill()
        process.communicate()
