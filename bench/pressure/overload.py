"""Three times what the workers can do, for a minute; then half of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.machine import Meter
from bench.measure import Goal, Reading, Result
from bench.place import Place
from bench.pressure.load import honest
from bench.pressure.offer import ACCEPTED, REFUSED
from bench.pressure.site import Seen, Trial, site
from penstock.queue import MAX_LENGTH

LATENCY = 2.0
"""Seconds: the queue's `max_latency`, and what its callers wait for."""
SECONDS = 0.01
"""Of one task."""
SLOTS = 4
OFFERED, USUAL = 3.0, 0.5
"""Times the capacity."""
NEAR = 0.05
"""A part of `LATENCY`: by so much above what it was before the overload a p99 is called usual again."""
NEVER = 1e6
"""Stands for the time of what has not ended."""

Spans = tuple[float, float, float]
"""Seconds of the usual load, of the overload, and of the usual one again."""
Line = Callable[..., Result]


def overload(place: Place, engine: str) -> Iterator[Result]:
    minute = (10.0, float(place.size(60, 3)), 12.0) if not place.quick else (1.0, 3.0, 2.0)
    trial = Trial(engine, SLOTS, SECONDS, MAX_LENGTH, LATENCY)
    yield from _tried(place, trial, minute, f"{SLOTS} slots, tasks of {SECONDS * 1000:.0f} ms", "overload")


def busy(place: Place, engine: str) -> Iterator[Result]:
    """Tasks that need all of two cores: callers and workers take it from each other."""
    spans = (3.0, 12.0, 7.0) if not place.quick else (1.0, 2.0, 1.0)
    trial = Trial(engine, 2, SECONDS, MAX_LENGTH, LATENCY, cpu=True)
    yield from _tried(place, trial, spans, "2 slots, 10 ms of CPU time", "cpu")


def _tried(place: Place, trial: Trial, spans: Spans, what: str, name: str) -> Iterator[Result]:
    with site(place, trial) as there, Meter() as meter:
        measuring = float(place.size(4, 2))
        before = there.capacity(measuring)
        phases = [(before * load, span) for load, span in zip((USUAL, OFFERED, USUAL), spans, strict=True)]
        seen = there.offer(phases, asking=1)
        after = there.capacity(measuring)

    def one(key: str, text: str, unit: str, value: float, goal: Goal | None = None, note: str = "") -> Result:
        reading = Reading(min(value, NEVER), meter.foreign)
        return Result(f"{name}/{key}", text, unit, (reading,), goal, trial.durability, note)

    yield from _kept(one, seen, (before, after), spans, what)
    if name == "overload":
        yield from _borne(one, seen, spans)


def _kept(one: Line, seen: Seen, capacities: tuple[float, float], spans: Spans, what: str) -> Iterator[Result]:
    """What callers are promised."""
    load, began = seen.load, seen.began + spans[0]
    ended, last = began + spans[1], began + spans[1] + spans[2]
    capacity = sum(capacities) / 2

    note = f"{capacities[0]:.0f}/s before the overload, {capacities[1]:.0f}/s after it"
    yield one("capacity", f"{what}: capacity", "tasks/s", capacity, None, note)
    refused = load.refused(began, ended)
    good = load.goodput(began, ended, LATENCY) / capacity
    text = f"{OFFERED:g} × that for {spans[1]:.0f} s: goodput ÷ capacity"
    yield one("goodput", text, "×", good, Goal(0.95, 0.9), f"{refused:.0%} of the calls were refused")
    p50, p99 = (load.quantile(began, ended, share) for share in (0.5, 0.99))
    note = f"p50 {p50:.2f} s, p99 {p99:.2f} s; calls were made {load.behind() * 1000:.1f} ms late at p99"
    yield one("p99", "p99, call due → task ended, ÷ max_latency", "×", p99 / LATENCY, Goal(1.1, 1.25, "less"), note)
    note = f"{load.repeated} ran twice; {load.failed} calls failed otherwise; {len(load.tasks):,} were accepted"
    yield one("lost", "accepted and lost", "tasks", load.lost, Goal(0, 0, "less"), note)
    usual = load.quantile(seen.began + spans[0] / 5, began, 0.99)
    recovery = load.recovery(ended, last, usual + NEAR * LATENCY)
    text = f"recovery at {USUAL:g} × capacity ÷ max_latency"
    yield one("recovery", text, "×", recovery / LATENCY, Goal(2, 2.5, "less"), f"usual p99 {usual * 1000:.0f} ms")


def _borne(one: Line, seen: Seen, spans: Spans) -> Iterator[Result]:
    """What it costs, and what those are told who are refused."""
    load, began = seen.load, seen.began + spans[0]
    ended = began + spans[1]
    warm = began + spans[1] / 4
    grown, size = seen.vigil.memory_growth(warm, ended)
    text = "memory of the process that grew most, last third ÷ first"
    yield one("memory", text, "×", grown, Goal(1.05, 1.25, "less"), f"{size:.0f} MB in all, the callers' too")
    grown, size = seen.vigil.file_growth(warm, ended)
    yield one("files", "files, likewise", "×", grown, Goal(1.05, 1.25, "less"), f"{size:.1f} MB")
    died = seen.died + seen.vigil.killed
    yield one("killed", "processes that ended, or were killed for memory", "", died, Goal(0, 0, "less"))
    for many, key, text in ((False, "one", "refused calls of one task"), (True, "many", "refused calls of 20 to 200")):
        told = load.told(many=many)
        note = f"{len(told):,} calls" + _typical(told)
        yield one(f"retry/{key}", f"{text}: retry_after within ±50 %", "%", honest(told) * 100, Goal(90, 75), note)
    for outcome, key in ((ACCEPTED, "accepted"), (REFUSED, "refused")):
        yield one(key, f"a call that is {key}, p50", "µs", load.took(outcome) * 1e6)


def _typical(told: list[tuple[float, float]]) -> str:
    if not told:
        return ""
    afters, truths = (sorted(column)[len(told) // 2] for column in zip(*told, strict=True))
    return f"; told {afters * 1000:.0f} ms and true {truths * 1000:.0f} ms at the median"
