"""From half to three times the capacity under three bounds, beside what the simulation says of the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

import msgspec
from msgspec import Struct

from bench.machine import Meter
from bench.measure import Goal, Reading, Result
from bench.place import Place
from bench.pressure.load import Load
from bench.pressure.overload import LATENCY, NEVER, SECONDS, SLOTS
from bench.pressure.site import Trial, site
from penstock.pressure.simulation import Bound, Governed, simulate, steady
from penstock.queue import MAX_LENGTH

LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
"""Times the capacity."""
FEWER = (0.5, 1.0, 1.5, 3.0)
"""For bounds that are here to show what goes wrong."""
BY_HAND = int(LATENCY / SECONDS * SLOTS)
"""Tasks that the slots do in that time, if nothing but the tasks took time."""
SPREAD = 0.02
"""Of the simulated times, which are about the same for all of these tasks."""
ENDLESS = 1 << 40
BIN = 0.5
"""Seconds that share a point of the picture."""


COUNTED = 4.0
"""Seconds of a load that count."""


class Policy(Struct, frozen=True):
    """A bound, as it is declared and as it is simulated."""

    title: str
    length: int
    latency: float | None
    bound: Callable[[], Bound]
    loads: tuple[float, ...] = FEWER


POLICIES = MappingProxyType(
    {
        "endless": Policy("no bound", ENDLESS, None, Bound),
        "fixed": Policy(f"max_length {BY_HAND}", BY_HAND, None, lambda: Bound(BY_HAND)),
        "governed": Policy(f"max_latency {LATENCY:g} s", MAX_LENGTH, LATENCY, lambda: Governed(LATENCY), LOADS),
    }
)


class Span(Struct, frozen=True):
    """Seconds: how long a load is offered, and after how long it counts."""

    offered: float
    warm: float


Spans = dict[float, Span]
"""By load."""
Found = dict[float, tuple[Load, float]]
"""By load, with when it began."""


def span(load: float, *, quick: bool) -> Span:
    """At overload it counts when so much waits as can be done in the latency, and more."""
    if quick:
        return Span(1.5, 0.5)
    warm = 2.0 if load <= 1 else 1.0 + LATENCY / (load - 1)
    return Span(warm + COUNTED, warm)


def sweep(place: Place, engine: str) -> Iterator[Result]:
    for name, policy in POLICIES.items():
        loads = policy.loads if not place.quick else (0.5, 3.0)
        spans = {load: span(load, quick=place.quick) for load in loads}
        with Meter() as meter:
            trial = Trial(engine, SLOTS, SECONDS, policy.length, policy.latency)
            found, capacity = _offered(place, trial, spans)
        for result in _results(name, policy, found, capacity, spans, meter.foreign):
            yield msgspec.structs.replace(result, durability=trial.durability)


def _offered(place: Place, trial: Trial, spans: Spans) -> tuple[Found, float]:
    """What was seen; and the capacity."""
    with site(place, trial) as there:
        capacity = there.capacity(place.size(4, 1))
        seen = {load: there.offer([(capacity * load, span.offered)]) for load, span in spans.items()}
    return {load: (one.load, one.began) for load, one in seen.items()}, capacity


def _results(
    name: str, policy: Policy, found: Found, capacity: float, spans: Spans, foreign: float
) -> Iterator[Result]:
    goodput, p99 = [], []
    for times, (load, began) in found.items():
        since, until = began + spans[times].warm, began + spans[times].offered
        goodput.append((times, load.in_time(since, until, LATENCY) / capacity))
        p99.append((times, min(NEVER, load.quantile(since, until, 0.99))))
    worst, (load, began) = max(found.items())
    simulated = [
        simulate(
            _known(policy.bound(), SLOTS / capacity),
            arrivals=capacity * times,
            threads=SLOTS,
            service=steady(SLOTS / capacity, SPREAD),
            patience=LATENCY,
            seconds=spans[times].offered,
            capacity=capacity,
            warmup=spans[times].warm,
        )
        for times in found
    ]

    def line(key: str, what: str, unit: str, points: list[tuple[float, float]], goal: Goal | None = None) -> Result:
        note = ", ".join(f"{value:.3g} at {times:g} ×" for times, value in points)
        last = (Reading(points[-1][1], foreign),)
        return Result(f"{key}/{name}", what, unit, last, goal, note=note, points=tuple(points))

    kept = name == "governed"
    at = f"{policy.title}, {worst:g} × for {spans[worst].offered:g} s"
    yield line("goodput", f"{at}: goodput ÷ capacity", "×", goodput, Goal(0.95, 0.85) if kept else None)
    yield line("p99", f"{at}: p99", "s", p99, Goal(1.1 * LATENCY, 1.25 * LATENCY, "less") if kept else None)
    yield line(
        "goodput-simulated", f"{at}: goodput, simulated", "×", _points(found, [one.goodput for one in simulated])
    )
    yield line("p99-simulated", f"{at}: p99, simulated", "s", _points(found, [one.p99 for one in simulated]))
    over = load.by_end(began, began + 4 * spans[worst].offered, BIN)
    longest = Reading(max((took for _, took in over), default=0.0), foreign)
    what = f"{at}: longest median of {BIN:g} s"
    yield Result(f"overtime/{name}", what, "s", (longest,), points=tuple(over))


def _known(bound: Bound, seconds: float) -> Bound:
    """It has seen tasks of so many seconds, as the real one has when the first load is offered."""
    for _ in range(100):
        bound.ran(seconds)
    bound.look(0.0, SLOTS)
    return bound


def _points(found: Found, values: list[float]) -> list[tuple[float, float]]:
    return list(zip(found, values, strict=True))
