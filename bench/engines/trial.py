"""One trial of one contender on one server: enqueue one by one and in bulk, drain both, then single calls when idle."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from bench.engines.client import Client, open_client, tail
from bench.engines.contender import Contender
from bench.engines.sites import Site
from bench.idle import tree
from bench.machine import TICKS, Meter
from bench.measure import percentile
from bench.place import ROOT, Place, end

MEMORY = Path("/dev/shm")
STALLED = 20.0
"""Seconds without a task done after which a drain has failed."""
WARM = 0.1
"""The share of a drain after which its clock starts: all workers are up by then."""
SETTLED = 1.0
"""Seconds from the last call until a worker counts as idle."""


class Trial(Struct):
    """What came out; `None` is what this contender, or this trial, has not. CPU: microseconds per task."""

    single: float
    bulk: float | None = None
    drain: float = 0.0
    worker_cpu: float = 0.0
    server_cpu: float = 0.0
    half: float | None = None
    most: float | None = None
    idle: float | None = None
    foreign: float = 0.0


class Marks:
    """`with Marks() as marks`: the file in which tasks leave a byte each; in memory where that is possible."""

    def __enter__(self) -> Marks:
        file, name = tempfile.mkstemp(prefix="penstock-bench-", dir=MEMORY if MEMORY.is_dir() else None)
        os.close(file)
        self.path = Path(name)
        return self

    def __exit__(self, *error: object) -> None:
        self.path.unlink()

    def count(self) -> int:
        return self.path.stat().st_size

    def reach(self, count: int, workers: list[subprocess.Popen[str]]) -> float:
        """The (monotonic) time at which so many tasks have run."""
        seen, moved = self.count(), time.monotonic()
        while True:
            now = self.count()
            if now >= count:
                return time.monotonic()
            if now > seen:
                seen, moved = now, time.monotonic()
            elif time.monotonic() - moved > STALLED:
                raise RuntimeError(f"stuck at {now:,} of {count:,} tasks for {STALLED:.0f} s")
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError(f"a worker ended after {now:,} of {count:,} tasks")
            time.sleep(0.001)


def cpu(pid: int) -> float:
    """Seconds of a process, its descendants, and those of them that have ended."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def environment(contender: Contender, site: Site, marks: Marks) -> dict[str, str]:
    ours = {"BENCH_URL": site.url, "BENCH_MARKS": str(marks.path), "BENCH_RESULTS": "", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **ours, **{name: value.format(url=site.url) for name, value in contender.launch.env.items()}}


@contextmanager
def open_workers(contender: Contender, env: Mapping[str, str], log: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """What they say goes to `log`, and its end into any error."""
    with log.open("a") as said:
        started = [
            subprocess.Popen(command, env=env, cwd=ROOT, stdout=said, stderr=said, text=True)
            for command in contender.launch.workers
        ]
    try:
        yield started
    except RuntimeError as error:
        raise RuntimeError(f"{error}; the workers said: {tail(log)}") from error
    finally:
        for process in started:
            end(process, 5)


def run(place: Place, contender: Contender, site: Site, *, idle: bool) -> Trial:
    """`idle`: also count what idle workers ask the server."""
    with place.private() as folder, Marks() as marks, Meter() as meter:
        before = cpu(site.pid)
        env = environment(contender, site, marks)
        with ExitStack() as workers:
            with open_client(contender.launch.client, env, folder / "client.log") as client:
                trial, waiting = _enqueued(place, contender, client)
                started = workers.enter_context(open_workers(contender, env, folder / "workers.log"))
                _drain(trial, waiting, marks, started, site)
                _ask(trial, place, contender, client)
            if idle and contender.kind != "raw":
                time.sleep(SETTLED)
                seconds = place.size(5, 1)
                trial.idle = site.commands(seconds) / seconds
        served = cpu(site.pid) - before
    trial.foreign = foreign(meter, served)
    return trial


def foreign(meter: Meter, served: float) -> float:
    """The share of the CPU that others took: the server goes on, and the meter takes what it used for a stranger's."""
    return max(0.0, meter.foreign - served / meter.total)


def _enqueued(place: Place, contender: Contender, client: Client) -> tuple[Trial, int]:
    """What enqueueing took, and how many tasks wait now."""
    singles, tasks = place.size(contender.singles, 50), place.size(contender.tasks, 1_000)
    single = singles / client.ask("one_by_one", count=singles)
    filled = tasks / client.ask("fill", count=tasks)
    return Trial(single, filled if contender.bulk else None), singles + tasks


def _drain(trial: Trial, waiting: int, marks: Marks, workers: list[subprocess.Popen[str]], site: Site) -> None:
    first = int(waiting * WARM)
    begun = marks.reach(first, workers)
    ours, theirs = sum(cpu(worker.pid) for worker in workers), cpu(site.pid)
    ended = marks.reach(waiting, workers)
    each = 1e6 / (waiting - first)
    trial.drain = (waiting - first) / (ended - begun)
    trial.worker_cpu = (sum(cpu(worker.pid) for worker in workers) - ours) * each
    trial.server_cpu = (cpu(site.pid) - theirs) * each


def _ask(trial: Trial, place: Place, contender: Contender, client: Client) -> None:
    if contender.kind == "ours" and (found := client.ask("kept")) < 100:
        raise RuntimeError(f"{found} of the last 100 results are there")
    if contender.latency:
        taken = client.ask("latency", count=place.size(100, 10))
        trial.half, trial.most = percentile(taken, 0.5), percentile(taken, 0.99)
