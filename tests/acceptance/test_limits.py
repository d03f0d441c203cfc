"""Workers in processes of their own keep one limit together, and one that is killed gives back what it held."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.acceptance.limiting import AT_A_TIME, RATE, limited_app
from tests.acceptance.processes import Stage, wait_until
from tests.acceptance.sites import kill_family

LATE = 0.3
"""Seconds that a busy machine may take from handing a task out to its start."""


def noted(notes: Path, *kinds: str) -> list[tuple[float, str]]:
    rows = [line.split() for line in notes.read_text().splitlines()]
    return sorted((float(moment), kind) for kind, moment, _ in rows if kind in kinds)


def test_processes_share_a_limit(stage: Stage, measured: Callable[[str], None]) -> None:
    url, notes = f"sqlite:///{stage.path}", stage.folder / "notes"
    notes.touch()
    app = limited_app(url, notes)
    count = int(RATE * 2)
    app.tasks["paced"].delay_many([()] * count)
    app.tasks["locked"].delay_many([(0.02,)] * 40)
    first = stage.start("limiting", url, notes)
    workers = [first, *(stage.start("limiting", url, notes) for _ in range(2))]
    app.tasks["free"].delay().get(timeout=20)
    waits = []
    for _ in range(10):
        time.sleep(0.05)
        called = time.monotonic()
        waits.append(app.tasks["free"].delay().get(timeout=20) - called)
    wait_until(lambda: len(noted(notes, "paced")) == count, 30.0, "all paced tasks have run")
    wait_until(lambda: len(noted(notes, "ended")) == 40, 30.0, "all locked tasks have run")
    starts = [moment for moment, _ in noted(notes, "paced")]
    for number in range(0, count, 20):
        for last in range(number, count):
            most = 1 + RATE * (starts[last] - starts[number] + LATE)
            assert last - number + 1 <= most, "no window has more than the rate"
    running = most_running = 0
    for _, kind in noted(notes, "begun", "ended"):
        running += 1 if kind == "begun" else -1
        most_running = max(most_running, running)
    assert most_running == AT_A_TIME
    measured(
        f"{count} in {starts[-1] - starts[0]:.2f} s at {RATE:g}/s; others waited at most {max(waits) * 1000:.0f} ms"
    )
    assert max(b - a for a, b in pairwise(starts)) < 1.0
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait()
    app.close()


def test_a_killed_worker_gives_back_its_place(stage: Stage) -> None:
    url, notes = f"sqlite:///{stage.path}", stage.folder / "notes"
    notes.touch()
    app = limited_app(url, notes)
    app.tasks["locked"].delay_many([(60.0,)] * 5)
    worker = stage.start("limiting", url, notes)
    wait_until(lambda: len(noted(notes, "begun")) == AT_A_TIME, 20.0, "two are running")
    kill_family(worker)
    stage.start("limiting", url, notes)
    wait_until(lambda: len(noted(notes, "begun")) == 2 * AT_A_TIME, 20.0, "their places are free, and taken again")
    app.close()
