"""Enqueue: how fast calls are published, one by one and by many awaiting callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Place, call, environment

CALLERS = 32


def one_by_one(count: int) -> float:
    """Calls a second of one blocking caller."""
    from bench.tasks import app, noop

    noop.delay(0)
    delay = noop.delay
    started = time.perf_counter()
    for number in range(count):
        delay(number)
    rate = count / (time.perf_counter() - started)
    app.close()
    return rate


def together(count: int) -> float:
    """Calls a second of `CALLERS` coroutines, each awaiting one call after the other."""
    return asyncio.run(_together(count))


async def _together(count: int) -> float:
    from bench.tasks import app, noop

    async def caller(number: int) -> None:
        for step in range(count // CALLERS):
            await noop.adelay(step)

    await noop.adelay(0)
    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    rate = count / (time.perf_counter() - started)
    app.close()
    return rate


def _ours(place: Place, function: str, durability: str, count: int) -> float:
    with place.private() as folder:
        env = environment(folder / "queue.db", durability)
        return float(call("bench.enqueue", function, env, count=count))


def _raw(place: Place, durability: str, count: int) -> float:
    with place.private() as folder:
        return float(call("bench.raw", "enqueue", folder=str(folder), durability=durability, count=count))


def _one_by_one(place: Place) -> Iterator[Result]:
    for durability, full in (("process", 100_000), ("power", 10_000)):
        count = place.size(full, 2_000)

        def once(durability: str = durability, count: int = count) -> tuple[float, float]:
            return _ours(place, "one_by_one", durability, count), _raw(place, durability, count)

        runs = place.repeat(5, once)
        ours = [Reading(both[0], foreign) for both, foreign in runs]
        theirs = [Reading(both[1], foreign) for both, foreign in runs]
        name = f"enqueue/{durability}"
        yield Result(name, "one by one, one blocking caller", "calls/s", tuple(ours), None, durability)
        yield Result(f"{name}/raw", "raw insert + commit", "calls/s", tuple(theirs), None, durability)
        yield Result(f"{name}/ratio", "the first ÷ the second", "×", ratios(ours, theirs), Goal(0.7, 0.4), durability)


def _together_(place: Place) -> Iterator[Result]:
    for durability, full, goal in (
        ("process", 320_000, Goal(150_000, 75_000)),
        ("power", 160_000, Goal(60_000, 30_000)),
    ):
        count = place.size(full, 3_200)
        runs = place.repeat(3, lambda durability=durability, count=count: _ours(place, "together", durability, count))  # type: ignore[misc]  # mypy: lambda default
        readings = tuple(Reading(value, foreign) for value, foreign in runs)
        what = f"{CALLERS} asyncio callers"
        yield Result(f"enqueue/asyncio/{durability}", what, "calls/s", readings, goal, durability)


MEASURES = (
    Measure("enqueue", "one by one, held against a raw insert and commit", _one_by_one),
    Measure("enqueue-asyncio", "many awaiting callers", _together_),
)
