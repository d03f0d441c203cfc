"""Processes that tests start, stop and kill; each knows its own, by id."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class Process:
    """A Python module run in a process of its own. `prefix` is a command to run it under."""

    def __init__(self, module: str, *arguments: object, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
        self._popen = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.pid = self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self.wait()

    def terminate(self) -> None:
        self._popen.terminate()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        self.send(signal.SIGSTOP)

    def wait_stopped(self, timeout: float = 20.0) -> None:
        """Until it has stopped itself."""
        wait_until(lambda: state(self.pid) == "T", timeout, f"process {self.pid} is stopped")

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def wait(self, timeout: float = 60.0) -> int:
        """The exit code, when it has ended by itself or by a signal."""
        self._popen.communicate(timeout=timeout)
        return self._popen.returncode

    def output(self, timeout: float = 60.0) -> str:
        """All that it printed, when it has ended."""
        out, _ = self._popen.communicate(timeout=timeout)
        return out

    def line(self) -> str:
        """The next line that it prints."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().rstrip("\n")

    def end(self) -> None:
        """Whatever it and its children do: gone. A stopped child would hold its output open for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError):  # its output was read to the end
            self._popen.communicate(timeout=10)


def state(pid: int) -> str:
    """The letter of a process's state in /proc; "X" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


class Stage:
    """The processes of one test, and the two files that they share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "queue.db"
        self.history = folder / "history"
        self.history.touch()
        self._processes: list[Process] = []

    def start(self, module: str, *arguments: object, prefix: Sequence[str] = ()) -> Process:
        process = Process(f"tests.acceptance.{module}", *arguments, prefix=prefix)
        self._processes.append(process)
        return process

    def worker(self, *options: object, prefix: Sequence[str] = ()) -> Process:
        """A bare worker."""
        return self.start("actor", "work", *options, self.path, self.history, prefix=prefix)

    def producer(self, *options: object) -> Process:
        return self.start("actor", "produce", *options, self.path, self.history)

    def close(self) -> None:
        for process in self._processes:
            process.end()


def wait_until(happened: Callable[[], object], timeout: float, what: str, pause: float = 0.005) -> float:
    """Look until it is so; how many seconds that took."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)
    return time.monotonic() - began
