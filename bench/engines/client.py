"""The driver's side of a contender's client, which answers as `peers/answer.py` does."""

from __future__ import annotations

import json
import selectors
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.place import ROOT, end

PATIENCE = 120.0
"""Seconds for one answer."""


class Client:
    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    def ask(self, act: str, **arguments: Any) -> Any:
        self.tell(act, **arguments)
        return self.answer(act)

    def tell(self, act: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": act, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self, act: str) -> Any:
        assert self._process.stdout is not None
        if not _readable(self._process.stdout, PATIENCE):
            raise RuntimeError(f"the client gave no answer to {act!r} in {PATIENCE:.0f} s: {tail(self._log)}")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client ended instead of answering {act!r}: {tail(self._log)}")
        return json.loads(line)


def tail(log: Path) -> str:
    """What was said last."""
    return log.read_text(errors="replace")[-1000:].strip().rpartition("\n")[2]


def _readable(stream: IO[str], timeout: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(timeout))


@contextmanager
def open_client(command: tuple[str, ...], env: Mapping[str, str], log: Path) -> Iterator[Client]:
    """What it says besides its answers goes to `log`."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield Client(process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            end(process, 1)
        assert process.stdout is not None
        process.stdout.close()
