"""Where a measure runs: private folders on a real disk, and processes that we start and end ourselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from bench.machine import QUIET, Meter, wait_for_quiet
from penstock.engines.sqlite.files import file_system

ROOT = Path(__file__).resolve().parent.parent
LOUDEST = 2 * QUIET
"""Foreign CPU share above which a repetition does not count, while there are enough others."""
URL, DURABILITY, EXPIRES = "PENSTOCK_BENCH_URL", "PENSTOCK_BENCH_DURABILITY", "PENSTOCK_BENCH_EXPIRES"
RATE = 1_000
"""Calls of `bench.tasks.limited` a second."""
SLEEP = "PENSTOCK_BENCH_SLEEP"
"""Seconds that a call of `bench.tasks.work` takes."""


class Place:
    """One run of the benchmarks. `quick` is for trying whether they work: the sizes are too small to mean anything."""

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder = folder
        self.quick = quick

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @contextmanager
    def private(self) -> Iterator[Path]:
        """A new folder, gone afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def repeat(self, times: int, once: Callable[[], Any], *, extra: int = 2) -> list[tuple[Any, float]]:
        """What `once` gave, `times` times, with the foreign CPU share of each: the quietest, out of up to `extra`
        more when some were loud."""
        if self.quick:
            times, extra = 1, 0
        runs: list[tuple[Any, float]] = []
        while len(runs) < times + extra and sum(foreign <= LOUDEST for _, foreign in runs) < times:
            wait_for_quiet(0 if self.quick else 3)
            with Meter() as meter:
                value = once()
            runs.append((value, meter.foreign))
        return sorted(runs, key=lambda run: run[1])[:times]


@contextmanager
def open_place(*, quick: bool) -> Iterator[Place]:
    """In `$PENSTOCK_BENCH_DIR`, else /var/tmp: /tmp is often memory, where a sync costs nothing."""
    parent = Path(os.environ.get("PENSTOCK_BENCH_DIR", "/var/tmp"))
    if file_system(str(parent)) in ("tmpfs", "ramfs"):
        raise SystemExit(f"{parent} is in memory, not on a disk: set PENSTOCK_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=parent) as folder:
        yield Place(Path(folder), quick=quick)


def environment(path: Path, durability: str, expires: float = 86_400.0) -> dict[str, str]:
    """The environment in which `bench.tasks` makes its app."""
    return {**os.environ, URL: f"sqlite:///{path}", DURABILITY: durability, EXPIRES: str(expires)}


def call(
    module: str, function: str, env: dict[str, str] | None = None, *, timeout: float = 600.0, **arguments: Any
) -> Any:
    """Run a function of the benchmarks in a process of its own; its result must be plain JSON."""
    with start_call(module, function, env, **arguments) as process:
        return result_of(process, timeout)


@contextmanager
def start_call(
    module: str, function: str, env: dict[str, str] | None = None, **arguments: Any
) -> Iterator[subprocess.Popen[str]]:
    """The same without waiting; see `result_of`."""
    command = [sys.executable, "-m", "bench.child", module, function, json.dumps(arguments)]
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        end(process)


def result_of(process: subprocess.Popen[str], timeout: float = 600.0) -> Any:
    out, _ = process.communicate(timeout=timeout)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


@contextmanager
def workers(
    env: dict[str, str], *arguments: str, count: int = 1, timeout: float = 10.0
) -> Iterator[list[subprocess.Popen[str]]]:
    """`count` workers, started together and stopped warmly at the end."""
    command = [sys.executable, "-m", "bench.serve", *arguments]
    started = [subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, text=True) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            end(process, timeout)


def end(process: subprocess.Popen[str], timeout: float = 10.0) -> None:
    """Ask it to stop, and make it when it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Counters:
    """Reads a queue's counters while others work on it: a primary-key look-up on a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection.set_busy_timeout(5000)

    def settled(self) -> int:
        """Tasks that left the queue since it exists, all queues together."""
        return self._count("SELECT coalesce(sum(settled), 0) FROM queue_stats")

    def results(self) -> int:
        """Rows of kept results, each of many tasks."""
        return self._count("SELECT count(*) FROM result")

    def _count(self, query: str) -> int:
        rows: list[Any] = self._connection.execute(query).fetchall()
        return int(rows[0][0])

    def settled_reaches(
        self, count: int, processes: Sequence[subprocess.Popen[str]], *, pause: float = 0.005, timeout: float = 300.0
    ) -> float:
        """Wait until `count` tasks are settled; returns the (monotonic) time. Raises when a worker ends before."""
        deadline = time.monotonic() + timeout
        while self.settled() < count:
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a worker ended before its work was done")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.settled():,} of {count:,} tasks settled after {timeout:.0f} s")
            time.sleep(pause)
        return time.monotonic()

    def close(self) -> None:
        self._connection.close()


def copy(source: Path, target: Path) -> None:
    """A closed database, with its pages on the disk, so that nobody pays for our copying later."""
    for suffix in ("", "-wal"):
        if Path(f"{source}{suffix}").exists():
            shutil.copyfile(f"{source}{suffix}", f"{target}{suffix}")
            file = os.open(f"{target}{suffix}", os.O_RDONLY)
            os.fsync(file)
            os.close(file)
