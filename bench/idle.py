"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Goal, Measure, Reading, Result
from bench.place import Counters, Place, call, environment, workers


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of all their threads, in nanosecond steps (the usual counters move in steps of 10 ms)."""
    files = (file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def proportional_memory(pids: list[int]) -> float:
    """MB, shared pages counted in part for each who shares them."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def _idle(place: Place) -> Iterator[Result]:
    seconds = place.size(20, 3)
    shares, sizes = [], []
    for _ in range(1 if place.quick else 2):
        with place.private() as folder:
            path = folder / "queue.db"
            env = environment(path, "power")
            call("bench.drain", "fill", env, task="noop", count=100)
            counters = Counters(path)
            with workers(env) as started:
                counters.settled_reaches(100, started, timeout=30)
                counters.close()
                time.sleep(2)
                pids = tree(started[0].pid)
                before, began = cpu_seconds(pids), time.monotonic()
                time.sleep(seconds)
                shares.append(Reading((cpu_seconds(pids) - before) / (time.monotonic() - began) * 100))
                sizes.append(Reading(proportional_memory(pids)))
    what = "idle worker, prefork × 2"
    yield Result("idle/cpu", f"{what}: CPU", "%", tuple(shares), Goal(0.2, 1, "less"), "power")
    yield Result("idle/memory", f"{what}: PSS of all its processes", "MB", tuple(sizes), Goal(45, 70, "less"), "power")


MEASURES = (Measure("idle", "CPU and memory of an idle worker", _idle),)
