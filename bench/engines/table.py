"""From trials to the lines of the table, with the targets that the engines are held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from bench.engines.contender import Contender
from bench.engines.trial import Trial
from bench.measure import Goal, Reading, Result, ratios

TITLES: Mapping[str, str] = MappingProxyType({"redis": "Redis", "rabbitmq": "RabbitMQ", "postgres": "PostgreSQL"})
SURVIVES: Mapping[str, str] = MappingProxyType({"redis": "process", "rabbitmq": "power", "postgres": "power"})
Get = Callable[[Trial], "float | None"]


class Goals(Struct, frozen=True):
    raw: Goal
    peer: Goal
    bulk: Goal
    celery: Goal | None = None
    celery_single: Goal | None = None


GOALS: Mapping[str, Goals] = MappingProxyType(
    {
        "redis": Goals(Goal(0.5, 0.3), Goal(2, 1.2), Goal(100_000, 50_000), Goal(40, 20), Goal(3, 1.5)),
        "rabbitmq": Goals(Goal(0.5, 0.3), Goal(1.5, 1), Goal(20_000, 10_000), Goal(10, 5), Goal(1, 0.8)),
        "postgres": Goals(Goal(0.5, 0.3), Goal(1.3, 1), Goal(100_000, 50_000)),
    }
)
RESULT_SEEN = Goal(2, 5, "less")
IDLE = Goal(2, 10, "less")
Trials = Sequence[tuple[Contender, list[Trial]]]
"""Each contender with its trials, one a round."""


def results(server: str, trials: Trials) -> Iterator[Result]:
    goals = GOALS[server]
    yield from _lines(server, trials, "drain", "drain", "tasks/s", lambda trial: trial.drain)
    yield from _against(server, trials, "drain", lambda trial: trial.drain, goals)
    yield from _lines(server, trials, "cpu/worker", "CPU of the workers", "µs/task", lambda trial: trial.worker_cpu)
    yield from _lines(server, trials, "cpu/server", "CPU of the server", "µs/task", lambda trial: trial.server_cpu)
    yield from _lines(server, trials, "single", "enqueue one by one", "calls/s", lambda trial: trial.single)
    mine, celery = _of(trials, "ours"), _of(trials, "celery")
    if mine and celery:
        readings = ratios(*([Reading(one.single, one.foreign) for one in side] for side in (mine, celery)))
        what = f"{TITLES[server]}, enqueue one by one ÷ Celery"
        yield Result(f"{server}/single/celery", what, "×", readings, goals.celery_single, SURVIVES[server])
    yield from _lines(server, trials, "bulk", "enqueue in bulk", "calls/s", lambda trial: trial.bulk, goals.bulk)
    half = "idle → result p50"
    yield from _lines(server, trials, "latency/p50", half, "ms", lambda trial: trial.half, RESULT_SEEN)
    yield from _lines(server, trials, "latency/p99", "idle → result p99", "ms", lambda trial: trial.most)
    yield from _lines(server, trials, "idle", "idle: commands a second", "/s", lambda trial: trial.idle, IDLE)


def _lines(
    server: str, trials: Trials, name: str, what: str, unit: str, get: Get, goal: Goal | None = None
) -> Iterator[Result]:
    """A line for each contender that has the number; the goal is ours."""
    for contender, runs in trials:
        note = contender.how if name == "drain" else ""
        readings = _readings(runs, get)
        if readings:
            own = goal if contender.kind == "ours" else None
            label = f"{TITLES[server]}, {what}: {contender.what}"
            yield Result(f"{server}/{name}/{contender.name}", label, unit, readings, own, SURVIVES[server], note)


def _against(server: str, trials: Trials, name: str, get: Get, goals: Goals) -> Iterator[Result]:
    """Ours divided by the others', round by round."""
    mine = _of(trials, "ours")
    if not mine:
        return
    peers = [(contender, runs) for contender, runs in trials if contender.kind == "peer"]
    best = max(peers, key=lambda one: statistics.median(trial.drain for trial in one[1]), default=None)
    rivals = [
        ("raw", "the raw loop", _of(trials, "raw"), goals.raw),
        ("peer", f"the best peer ({best[0].name})" if best else "", best[1] if best else [], goals.peer),
        ("celery", "Celery with results", _of(trials, "celery"), goals.celery),
    ]
    for short, rival, theirs, goal in rivals:
        if theirs:
            both = ratios(*([Reading(one.drain, one.foreign) for one in side] for side in (mine, theirs)))
            what = f"{TITLES[server]}, drain ÷ {rival}"
            yield Result(f"{server}/{name}/ratio/{short}", what, "×", both, goal, SURVIVES[server])


def _of(trials: Trials, kind: str) -> list[Trial]:
    return next((runs for contender, runs in trials if contender.kind == kind), [])


def _readings(runs: list[Trial], get: Get) -> tuple[Reading, ...]:
    return tuple(Reading(value, trial.foreign) for trial in runs if (value := get(trial)) is not None)
