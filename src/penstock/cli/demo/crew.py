"""The demo's worker: a real `penstock worker` in a process of its own, with a log file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from penstock.errors import WorkerError

PATIENCE = 10.0
"""Seconds for a warm stop."""


class DemoWorker:
    """`with DemoWorker(…)`: stopped at the end, whatever happened."""

    def __init__(self, broker: str, processes: int, log: Path) -> None:
        self.log = log
        command = f"-m penstock.cli -A penstock.cli.demo.worker_side worker -c {processes} -n demo --loglevel info"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *command.split()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PENSTOCK_BROKER_URL": broker},
                # Ctrl-C reaches only the demo, which then stops its worker.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise `WorkerError` with the end of its log if it has ended."""
        code = self._process.poll()
        if code is not None:
            end = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-5:])
            raise WorkerError(f"the demo's worker ended with {code}; the end of {self.log}: {end}")

    def said(self, pid: int) -> str | None:
        """What its log says of the death of the child `pid`."""
        found = re.search(rf"^.*pid {pid}\) was killed.*$", self.log.read_text("utf-8", "replace"), re.MULTILINE)
        return found.group().rpartition("penstock.worker: ")[2] if found else None

    def __enter__(self) -> DemoWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
