"""What is known of real processes, through /proc and through ps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from penstock.cli.services import processes

WAITS = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture(params=["proc", "ps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "ps":
        if shutil.which("ps") is None:
            pytest.skip("ps is not here")
        monkeypatch.setattr(processes, "PROC", False)
    elif not processes.PROC:
        pytest.skip("there is no /proc here")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, "a) b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.usefixtures("way")
def test_a_process_is_known_by_its_beginning(other: subprocess.Popen[bytes]) -> None:
    seen = processes.look(other.pid)
    assert seen is not None
    assert (seen.pid, seen.group) == (other.pid, other.pid)
    assert "a) b" in seen.command
    assert processes.look(other.pid).began == seen.began
    assert seen.began != processes.look(1).began
    assert [one.pid for one in processes.group(other.pid)] == [other.pid]
    assert 1_000_000 < processes.memory([seen]) < 1_000_000_000


@pytest.mark.usefixtures("way")
def test_only_the_process_that_was_meant_is_ended(other: subprocess.Popen[bytes]) -> None:
    seen = processes.look(other.pid)
    assert seen is not None
    assert not processes.terminate(replace(seen, began="another"))
    assert other.poll() is None
    assert processes.terminate(seen)
    assert other.wait(10) == -signal.SIGTERM


@pytest.mark.usefixtures("way")
def test_remains_are_no_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"], start_new_session=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.look(child.pid) is None
    assert processes.group(child.pid) == []
    child.wait()
    assert processes.look(child.pid) is None
    assert processes.memory([]) is None
