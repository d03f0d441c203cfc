"""Where a worker's time goes: `python -m bench.profile` drains a queue in one process under cProfile.

cProfile makes small Python functions look dearer than they are. For the truth about C code and the kernel, sample a
child of a real drain: `py-spy record --native --rate 500 --pid CHILD -o drain.svg`, or `perf top -p CHILD`.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
from pathlib import Path

from bench.place import ROOT, call, environment, open_place

PARTS = ("engines/sqlite", "worker", "codec", "pools", "bench")


def drain(count: int) -> None:
    """In a process of its own, with a filled queue."""
    from bench.tasks import app
    from penstock.worker import Worker, WorkerOptions

    worker = Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="WARNING"))
    profiler = cProfile.Profile()
    profiler.runcall(worker.run)
    report(pstats.Stats(profiler), count)


def report(stats: pstats.Stats, count: int) -> None:
    """Microseconds per task: the sum of each part, then the 25 dearest functions, each without what it calls."""
    own = {place: values[2] for place, values in stats.stats.items()}  # type: ignore[attr-defined]  # not in typeshed
    parts: dict[str, float] = {}
    for place, seconds in own.items():
        parts[part_of(place[0], place[2])] = parts.get(part_of(place[0], place[2]), 0.0) + seconds
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"{seconds / count * 1e6:8.3f} µs  {part}")
    print()
    for (file, line, name), seconds in sorted(own.items(), key=lambda item: -item[1])[:25]:
        print(f"{seconds / count * 1e6:8.3f} µs  {name}  {shown(file, line)}")


def part_of(file: str, name: str) -> str:
    """The folder of Penstock that a function is in, or the library that a built-in belongs to."""
    if "/penstock/" in file:
        inside = file.rpartition("/penstock/")[2]
        return next((part for part in PARTS if inside.startswith(part)), "penstock, the rest")
    return next((library for library in ("apsw", "msgspec", "posix", "fcntl") if library in name), "Python, the rest")


def shown(file: str, line: int) -> str:
    return "" if file == "~" else f"{os.path.relpath(file, ROOT)}:{line}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--durability", choices=("process", "power"), default="process")
    options = parser.parse_args()
    with open_place(quick=True) as place:
        env = environment(Path(place.folder, "queue.db"), options.durability)
        call("bench.drain", "fill", env, task="noop", count=options.tasks)
        run = f"from bench.profile import drain; drain({options.tasks})"
        return subprocess.run([sys.executable, "-c", run], env=env, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
