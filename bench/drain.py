"""Drain: how fast waiting tasks are run and settled, their results stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import raw
from bench.machine import Meter
from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Counters, Place, call, copy, environment, workers

CHUNK = 100_000


def fill(task: str, count: int) -> None:
    """In a process of its own: publish `count` calls of `task`, and close."""
    from bench import tasks

    for start in range(0, count, CHUNK):
        getattr(tasks, task).delay_many((number,) for number in range(start, min(start + CHUNK, count)))
    tasks.app.close()


def filled(place: Place, task: str, count: int) -> Path:
    """A closed database with `count` waiting calls of `task`; made once per run."""
    path = place.folder / f"{task}-{count}.db"
    if not path.exists():
        call("bench.drain", "fill", environment(path, "process"), task=task, count=count)
    return path


class Drained(NamedTuple):
    """Tasks a second, and microseconds of CPU time per task, all processes together."""

    rate: float
    cpu: float


def drain(place: Place, source: Path, count: int, durability: str, *arguments: str, processes: int = 1) -> Drained:
    """The rate from the first task that is seen settled to the last; the CPU time with the workers' start and end."""
    with place.private() as folder:
        path = folder / "queue.db"
        copy(source, path)
        counters = Counters(path)
        try:
            with Meter() as meter, workers(environment(path, durability), *arguments, count=processes) as started:
                begun = counters.settled_reaches(1, started, pause=0.001, timeout=30)
                first = counters.settled()
                ended = counters.settled_reaches(count, started)
        finally:
            counters.close()
        return Drained((count - first) / (ended - begun), meter.own / count * 1e6)


def raw_drain(place: Place, source: Path, count: int, durability: str) -> Drained:
    with place.private() as folder:
        copy(source, folder / "raw.db")
        with Meter() as meter:
            rate = call("bench.raw", "drain", path=str(folder / "raw.db"), durability=durability)
        return Drained(float(rate), meter.own / count * 1e6)


def _against_raw(place: Place) -> Iterator[Result]:
    count, raw_count = place.size(2_000_000, 20_000), place.size(1_000_000, 20_000)
    source = filled(place, "noop", count)
    conventional = place.folder / "raw.db"
    raw.fill(str(conventional), raw_count)
    for durability, goal in (("process", Goal(1.8, 1.3)), ("power", Goal(1.5, 1.0))):

        def once(durability: str = durability) -> tuple[Drained, Drained]:
            return drain(place, source, count, durability), raw_drain(place, conventional, raw_count, durability)

        runs = place.repeat(3, once)
        ours = [(both[0], foreign) for both, foreign in runs]
        theirs = [(both[1], foreign) for both, foreign in runs]
        name = f"drain/{durability}"
        yield from _told(name, "plain functions, prefork × 2", ours, durability)
        yield from _told(f"{name}/raw", "raw conventional queue", theirs, durability)
        ratio = ratios(*([Reading(one.rate, foreign) for one, foreign in side] for side in (ours, theirs)))
        yield Result(f"{name}/ratio", "the first rate ÷ the raw one", "×", ratio, goal, durability)
    conventional.unlink()


def _told(
    name: str, what: str, runs: list[tuple[Drained, float]], durability: str, goal: Goal | None = None
) -> Iterator[Result]:
    rates = tuple(Reading(one.rate, foreign) for one, foreign in runs)
    cpu = tuple(Reading(one.cpu, foreign) for one, foreign in runs)
    yield Result(name, what, "tasks/s", rates, goal, durability)
    yield Result(f"{name}/cpu", f"{what}: CPU time", "µs/task", cpu, None, durability)


def _coroutines(place: Place) -> Iterator[Result]:
    count = place.size(1_000_000, 20_000)
    source = filled(place, "anoop", count)
    runs = place.repeat(
        3, lambda: drain(place, source, count, "process", "--pool=asyncio", "--concurrency=100", processes=2)
    )
    what = "coroutines, 2 workers, asyncio × 100"
    yield from _told("drain/asyncio", what, runs, "process", Goal(250_000, 120_000))


def _threads(place: Place) -> Iterator[Result]:
    count = place.size(500_000, 10_000)
    source = filled(place, "noop", count)
    runs = place.repeat(3, lambda: drain(place, source, count, "process", "--pool=threads", "--concurrency=8"))
    what = "plain functions, one process, threads × 8"
    yield from _told("drain/threads", what, runs, "process", Goal(60_000, 30_000))


MEASURES = (
    Measure("drain", "plain functions by prefork, held against a raw queue", _against_raw),
    Measure("drain-asyncio", "coroutines by the event loop", _coroutines),
    Measure("drain-threads", "plain functions by threads", _threads),
)
