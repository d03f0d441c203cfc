"""Canvas: a large chord from its publish to its body, a long chain, and what a transition costs beside a plain task."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

from bench.measure import Goal, Measure, Reading, Result
from bench.place import Place, call, environment, workers

TIMEOUT = 300.0


def chord_of(count: int) -> tuple[float, float]:
    """Tasks a second, from the call to the body's result, and the caller's largest memory in MB."""
    from bench.tasks import app, length, noop
    from penstock import chord

    started = time.perf_counter()
    result = chord((noop.s(number) for number in range(count)), length.s()).delay()
    if result.get(timeout=TIMEOUT) != count:
        raise RuntimeError("the body did not get all values")
    taken = time.perf_counter() - started
    app.close()
    return (count + 1) / taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chain_of(count: int) -> float:
    """Milliseconds a link, from the return of the publish to the last result."""
    from bench.tasks import app, one_more
    from penstock import chain

    result = chain(one_more.s(0), *(one_more.s() for _ in range(count - 1))).delay()
    started = time.perf_counter()
    if result.get(timeout=TIMEOUT) != count:
        raise RuntimeError("a link is missing")
    taken = time.perf_counter() - started
    app.close()
    return taken / count * 1e3


def drain_of(count: int, gathered: bool) -> float:
    """Microseconds of CPU time per task of a lone worker in this process, for members of a chord or plain tasks."""
    from bench.tasks import app, length, noop
    from penstock import chord, group
    from penstock.worker.settings import WorkerOptions
    from penstock.worker.worker import Worker

    members = group(noop.s(number) for number in range(count))
    (chord(members, length.s()) if gathered else members).delay()
    started = time.process_time()
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run()
    taken = time.process_time() - started
    app.close()
    return taken / count * 1e6


def _with_workers(place: Place, function: str, count: int) -> Any:
    """With one worker of two processes."""
    with place.private() as folder:
        env = environment(folder / "queue.db", "process")
        with workers(env):
            call("bench.canvas", "chain_of", env, count=10)  # they are up
            return call("bench.canvas", function, env, count=count)


def _canvas(place: Place) -> Iterator[Result]:
    members, links = place.size(100_000, 2_000), place.size(1_000, 50)
    runs = place.repeat(3, lambda: _with_workers(place, "chord_of", members))
    rates = tuple(Reading(values[0], foreign) for values, foreign in runs)
    memory = tuple(Reading(values[1], foreign) for values, foreign in runs)
    what = f"chord of {members:,} no-ops, published and run"
    yield Result("canvas/chord", what, "tasks/s", rates, Goal(60_000, 40_000), "process")
    yield Result("canvas/chord/memory", f"{what}: its caller", "MB", memory, Goal(150, 200, "less"), "process")
    chains = place.repeat(3, lambda: _with_workers(place, "chain_of", links))
    readings = tuple(Reading(value, foreign) for value, foreign in chains)
    yield Result("canvas/chain", f"chain of {links:,} links", "ms a link", readings, Goal(0.5, 1.0, "less"), "process")
    pairs = place.repeat(3, lambda: _transition(place, members))
    costs = tuple(Reading(both[0] - both[1], foreign) for both, foreign in pairs)
    what = "CPU time of a chord's member beside a plain task"
    yield Result("canvas/transition", what, "µs", costs, Goal(15.0, 30.0, "less"), "process")


def _transition(place: Place, count: int) -> tuple[float, float]:
    taken = []
    for gathered in (True, False):
        with place.private() as folder:
            env = environment(folder / "queue.db", "process")
            taken.append(float(call("bench.canvas", "drain_of", env, count=count, gathered=gathered)))
    return taken[0], taken[1]


MEASURES = (Measure("canvas", "chords, chains, and what follows a task", _canvas),)
