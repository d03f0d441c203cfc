"""Latency: an idle worker, one call; when does it run, and when is its result seen?"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from bench.measure import Goal, Measure, Reading, Result, percentile
from bench.place import Place, call, environment, workers

GAP = (0.003, 0.010)
"""Seconds between two calls: long enough for the worker to fall asleep again."""


def samples(count: int) -> list[tuple[float, float]]:
    """Milliseconds from the call until the function runs, and until its result is here."""
    from bench.tasks import app, now

    for _ in range(20):
        now.delay().get(10)
    taken = []
    for _ in range(count):
        time.sleep(random.uniform(*GAP))
        called = time.monotonic_ns()
        ran = now.delay().get(10)
        seen = time.monotonic_ns()
        taken.append(((ran - called) / 1e6, (seen - called) / 1e6))
    app.close()
    return taken


def _once(place: Place, durability: str, count: int) -> list[tuple[float, float]]:
    with place.private() as folder:
        env = environment(folder / "queue.db", durability)
        with workers(env):
            return [(ran, seen) for ran, seen in call("bench.latency", "samples", env, count=count)]


def _latency(place: Place) -> Iterator[Result]:
    wakes = place.repeat(2, lambda: call("bench.raw", "wake", count=place.size(500, 50)))
    for share in (0.5, 0.99):
        readings = tuple(Reading(percentile(taken, share), foreign) for taken, foreign in wakes)
        what = f"raw: a pipe wakes an idle process, p{share * 100:.0f}"
        yield Result(f"latency/raw/p{share * 100:.0f}", what, "ms", readings)
    goals = {
        "process": (Goal(0.2, 0.5, "less"), Goal(1, 5, "less"), Goal(0.3, 1, "less"), Goal(2, 10, "less")),
        "power": (Goal(0.7, 1.5, "less"), Goal(2, 6, "less"), Goal(1, 2, "less"), Goal(3, 10, "less")),
    }
    for durability, (run_half, run_most, seen_half, seen_most) in goals.items():
        count = place.size(1_000, 50)
        runs = place.repeat(3, lambda durability=durability, count=count: _once(place, durability, count))  # type: ignore[misc]  # mypy: lambda default
        for column, what, share, goal in (
            (0, "idle → running", 0.5, run_half),
            (0, "idle → running", 0.99, run_most),
            (1, "idle → result seen", 0.5, seen_half),
            (1, "idle → result seen", 0.99, seen_most),
        ):
            readings = tuple(
                Reading(percentile([sample[column] for sample in taken], share), foreign) for taken, foreign in runs
            )
            point = f"p{share * 100:.0f}"
            name = f"latency/{durability}/{'running' if column == 0 else 'result'}/{point}"
            yield Result(name, f"{what}, {point}", "ms", readings, goal, durability)


MEASURES = (Measure("latency", "one call for an idle worker", _latency),)
