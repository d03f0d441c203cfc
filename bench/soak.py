"""A minute of everything at once: producing, draining, and results that expire as fast as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.drain import drain, filled
from bench.machine import Meter
from bench.measure import Goal, Measure, Reading, Result
from bench.place import Counters, Place, environment, start_call, workers

EXPIRES = 5.0
"""Seconds that a result is kept."""
BACKLOG = 20_000
"""Waiting tasks at which the producer pauses."""


class Sizes(NamedTuple):
    """At one moment: bytes of the files, results kept."""

    file: int
    wal: int
    results: int


def produce(seconds: float) -> int:
    """Publish in bulk for so long, as fast as it is drained; returns how many."""
    from bench.tasks import app, noop

    engine, ended, count = app.engine, time.monotonic() + seconds, 0
    while time.monotonic() < ended:
        if (engine.run(app.broker.depth("default")) or 0) > BACKLOG:
            time.sleep(0.002)
            continue
        count += len(noop.delay_many([(number,) for number in range(1_000)]))
    app.close()
    return count


def _sizes(path: Path, counters: Counters) -> Sizes:
    return Sizes(os.path.getsize(path), os.path.getsize(f"{path}-wal"), counters.results())


def _soak(place: Place) -> Iterator[Result]:
    seconds, warm = place.size(60, 6), place.size(20, 3)
    count = place.size(1_000_000, 20_000)
    burst = [drain(place, filled(place, "noop", count), count, "process").rate for _ in range(1 if place.quick else 3)]
    with place.private() as folder, Meter() as meter:
        path = folder / "queue.db"
        env = environment(path, "process", EXPIRES)
        with workers(env) as started, start_call("bench.soak", "produce", env, seconds=seconds + 10):
            while not path.exists() or not Path(f"{path}-wal").exists():
                time.sleep(0.01)
            time.sleep(1)
            counters = Counters(path)
            time.sleep(warm - 1)
            before, settled, began = _sizes(path, counters), counters.settled(), time.monotonic()
            largest = before
            while time.monotonic() < began + seconds - warm:
                time.sleep(1)
                now = _sizes(path, counters)
                largest = Sizes(*map(max, largest, now))
                if started[0].poll() is not None:
                    raise RuntimeError("the worker ended")
            rate = (counters.settled() - settled) / (time.monotonic() - began)
            counters.close()
    noise = meter.foreign

    def one(value: float) -> tuple[Reading]:
        return (Reading(value, noise),)

    yield Result("soak/rate", f"{seconds} s of producing, draining, expiring", "tasks/s", one(rate), None, "process")
    best = sorted(burst)[len(burst) // 2]
    yield Result("soak/ratio", "the same ÷ a burst drain", "×", one(rate / best), Goal(0.5, 0.35), "process")
    for name, what, after, start in (
        ("file", "file, largest ÷ after warm-up", largest.file, before.file),
        ("wal", "WAL, largest ÷ after warm-up", largest.wal, before.wal),
    ):
        note = f"{start / 1e6:.0f} MB after {warm} s, {after / 1e6:.0f} MB at most later"
        yield Result(f"soak/{name}", what, "×", one(after / max(1, start)), Goal(1.05, 1.25, "less"), "process", note)
    yield Result("soak/results", "most rows of results kept meanwhile", "rows", one(largest.results), None, "process")


MEASURES = (Measure("soak", "a minute of everything", _soak),)
