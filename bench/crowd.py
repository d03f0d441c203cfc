"""Many at once: 16 producers that publish one call now and then, 8 worker processes, and one who publishes in bulk."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.measure import Goal, Measure, Reading, Result, percentile
from bench.place import Place, environment, result_of, start_call, workers

PRODUCERS, WORKERS = 16, 8
PAUSE = 0.01
"""Seconds between two calls of a producer, on average."""


def produce(seconds: float) -> list[float]:
    """Milliseconds that each publish took."""
    from bench.tasks import app, noop

    noop.delay(0)
    taken, ended = [], time.monotonic() + seconds
    while time.monotonic() < ended:
        time.sleep(random.uniform(0, 2 * PAUSE))
        started = time.perf_counter()
        noop.delay(1)
        taken.append((time.perf_counter() - started) * 1000)
    app.close()
    return taken


def bulk(seconds: float) -> float:
    """Publish as much as goes in; returns calls a second."""
    from bench.tasks import app, noop

    count, ended = 0, time.monotonic() + seconds
    while time.monotonic() < ended:
        count += len(noop.delay_many([(number,) for number in range(1_000)]))
    app.close()
    return count / seconds


def _once(place: Place, durability: str, seconds: float) -> tuple[float, float]:
    """p99 of a publish in milliseconds, and the bulk producer's rate."""
    with place.private() as folder, ExitStack() as stack:
        env = environment(folder / "queue.db", durability)
        stack.enter_context(workers(env, f"--concurrency={WORKERS}"))
        time.sleep(1)
        flood = stack.enter_context(start_call("bench.crowd", "bulk", env, seconds=seconds + 2))
        time.sleep(0.5)
        producers = [
            stack.enter_context(start_call("bench.crowd", "produce", env, seconds=seconds)) for _ in range(PRODUCERS)
        ]
        taken = [value for producer in producers for value in result_of(producer)]
        return percentile(taken, 0.99), result_of(flood)


def _crowd(place: Place) -> Iterator[Result]:
    for durability in ("process", "power"):
        seconds = place.size(6, 2)
        runs = place.repeat(2, lambda durability=durability, seconds=seconds: _once(place, durability, seconds))  # type: ignore[misc]  # mypy: lambda default
        what = f"publish p99: {PRODUCERS} producers, {WORKERS} workers, 1 bulk"
        p99 = tuple(Reading(both[0], foreign) for both, foreign in runs)
        rate = tuple(Reading(both[1], foreign) for both, foreign in runs)
        yield Result(f"crowd/{durability}", what, "ms", p99, Goal(10, 30, "less"), durability)
        yield Result(f"crowd/{durability}/bulk", "the bulk producer meanwhile", "calls/s", rate, None, durability)


MEASURES = (Measure("crowd", "producers, workers and a bulk producer at once", _crowd),)
