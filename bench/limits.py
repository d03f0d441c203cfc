"""A rate over four workers: how exactly it is kept, and what it costs those who wait in the same queue without one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.measure import Goal, Measure, Reading, Result, percentile
from bench.place import RATE, Counters, Place, call, environment, result_of, start_call, workers

WORKERS = 4
PAUSE = 0.02
"""Seconds between two calls of the neighbour."""


def fill(count: int) -> None:
    """So many calls that wait for their limit."""
    from bench.tasks import app, limited

    limited.delay_many((number,) for number in range(count))
    app.close()


def neighbour(seconds: float) -> list[float]:
    """Milliseconds from a call without a limit to its start, one now and then."""
    from bench.tasks import app, now

    now.delay().get(timeout=30)
    taken, ended = [], time.monotonic() + seconds
    while time.monotonic() < ended:
        time.sleep(PAUSE)
        called = time.monotonic_ns()
        taken.append((now.delay().get(timeout=30) - called) / 1e6)
    app.close()
    return taken


def _once(place: Place, seconds: float, count: int) -> tuple[float, list[float]]:
    """Per cent that the rate is off, and the neighbour's waits."""
    with place.private() as folder:
        env = environment(folder / "queue.db", "process")
        call("bench.limits", "fill", env, count=count)
        with workers(env, "--concurrency=1", count=WORKERS) as started:
            counters = Counters(folder / "queue.db")
            try:
                counters.settled_reaches(min(count, RATE // 2), started, pause=0.001, timeout=30)
                before, begun = counters.settled(), time.monotonic()
                with start_call("bench.limits", "neighbour", env, seconds=seconds) as one:
                    waits: list[float] = result_of(one)
                done, took = counters.settled() - before - len(waits) - 1, time.monotonic() - begun
            finally:
                counters.close()
    return abs(done / (RATE * took) - 1) * 100, waits


def _limits(place: Place) -> Iterator[Result]:
    seconds = place.size(60, 5)
    runs = place.repeat(1, lambda: _once(place, seconds, RATE * (seconds + 15)), extra=1)
    alone = place.repeat(1, lambda: _once(place, seconds / 4, 0), extra=1)
    off = tuple(Reading(value, foreign) for (value, _), foreign in runs)
    yield Result(
        "limits", f"{RATE:,}/s, {WORKERS} workers, {seconds} s: off by", "%", off, Goal(0.5, 1.0, "less"), "process"
    )
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        beside = tuple(Reading(percentile(waits, share), foreign) for (_, waits), foreign in runs)
        yield Result(f"limits/{name}", f"{name} of a neighbour without a limit", "ms", beside, None, "process")
        base = tuple(Reading(percentile(waits, share), foreign) for (_, waits), foreign in alone)
        yield Result(f"limits/{name}/base", "the same in an empty queue", "ms", base, None, "process")


MEASURES = (Measure("limits", "a rate over several workers", _limits),)
