"""How long it takes to start."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Goal, Measure, Reading, Result
from bench.place import ROOT, Counters, Place, call, end, environment

IMPORT = "import time; t = time.perf_counter(); import penstock; print(time.perf_counter() - t)"
WORKER = (str(Path(sys.executable).parent / "penstock"), "-A", "bench.tasks", "worker", "-c", "2")


def _first_task(place: Place) -> float:
    """Seconds from `penstock worker` to the first settled task."""
    with place.private() as folder:
        path = folder / "queue.db"
        env = environment(path, "power")
        call("bench.drain", "fill", env, task="noop", count=1)
        counters = Counters(path)
        began = time.monotonic()
        process = subprocess.Popen(
            WORKER, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        try:
            return counters.settled_reaches(1, [process], pause=0.001, timeout=30) - began
        finally:
            counters.close()
            end(process)


def _import() -> float:
    """Milliseconds that `import penstock` takes in a new interpreter."""
    told = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(told.stdout) * 1000


def _startup(place: Place) -> Iterator[Result]:
    starts = place.repeat(7, lambda: _first_task(place))
    imports = place.repeat(9, _import)
    yield Result(
        "startup/worker",
        "`penstock worker` → first task done",
        "s",
        tuple(Reading(value, foreign) for value, foreign in starts),
        Goal(0.35, 0.7, "less"),
        "power",
    )
    yield Result(
        "startup/import",
        "`import penstock`",
        "ms",
        tuple(Reading(value, foreign) for value, foreign in imports),
        Goal(80, 150, "less"),
    )


MEASURES = (Measure("startup", "the worker's start, and the import", _startup),)
