"""Drain through a broker, held against the embedded engine used directly, a moment later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.broker.site import environment, queue_file, site
from bench.drain import Drained, drain, filled
from bench.machine import Meter
from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Counters, Place, workers


def through_broker(place: Place, source: Path, count: int, durability: str) -> Drained:
    """As `bench.drain.drain`, the broker's CPU time with it."""
    with Meter() as meter, site(place, durability, source) as server:
        counters = Counters(queue_file(server))
        try:
            with workers(environment(server, durability)) as started:
                begun = counters.settled_reaches(1, started, pause=0.001, timeout=30)
                first = counters.settled()
                ended = counters.settled_reaches(count, started)
        finally:
            counters.close()
    return Drained((count - first) / (ended - begun), meter.own / count * 1e6)


def _drain(place: Place) -> Iterator[Result]:
    count = place.size(1_000_000, 20_000)
    source = filled(place, "noop", count)
    for durability in ("process", "power"):

        def once(durability: str = durability) -> tuple[Drained, Drained]:
            return through_broker(place, source, count, durability), drain(place, source, count, durability)

        runs = place.repeat(3, once)
        for column, what in ((0, "through the broker, 2 workers"), (1, "embedded, 2 workers")):
            name = f"broker/drain/{durability}/{column}"
            rates = tuple(Reading(both[column].rate, foreign) for both, foreign in runs)
            cpu = tuple(Reading(both[column].cpu, foreign) for both, foreign in runs)
            yield Result(name, what, "tasks/s", rates, None, durability)
            yield Result(f"{name}/cpu", f"{what}: CPU time", "µs/task", cpu, None, durability)
        ours, embedded = ([Reading(both[column].rate, foreign) for both, foreign in runs] for column in (0, 1))
        goal = Goal(0.6, 0.35)
        yield Result(
            f"broker/drain/{durability}/ratio", "the first ÷ embedded", "×", ratios(ours, embedded), goal, durability
        )


MEASURES = (Measure("drain", "no-op tasks with results", _drain),)
