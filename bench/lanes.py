"""What one step (settle 256, claim 256) costs, by how much waits and in how many lanes it waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Place, call, environment

BATCH = 256
STEPS = 300
WORKER = "0" * 32


def step_cost(waiting: int, lanes: int, refill: bool) -> float:
    """Median microseconds per task of a step. `refill`: top up whenever half is gone, so that `waiting` stays true."""
    from bench.tasks import app, noop
    from penstock.broker import Demand
    from penstock.delivery import ACK, Settlement
    from penstock.outcome import Outcome, State

    engine, broker = app.engine, app.broker
    want = Demand(("default",), BATCH, WORKER)
    publish(waiting, lanes)
    taken, left = [], waiting
    settled: list[Settlement] = []
    for _ in range(STEPS):
        if refill and left < waiting // 2:
            publish(waiting - left, lanes)
            left = waiting
        started = time.perf_counter()
        deliveries = engine.run(broker.step(settled, want)).deliveries
        taken.append(time.perf_counter() - started)
        left -= len(deliveries)
        outcome = Outcome(State.SUCCESS, b"null", time.time())
        settled = [Settlement(delivery.receipt, ACK, outcome) for delivery in deliveries]
    assert noop.app is app
    app.close()
    return statistics.median(taken[1:]) / BATCH * 1e6


def publish(count: int, lanes: int) -> None:
    """`count` calls, evenly over `lanes` partitions, past the client, which would take minutes."""
    from bench.tasks import app, noop

    each = count // lanes
    for lane in range(lanes):
        partition = f"customer-{lane}" if lanes > 1 else ""
        many = [
            app.client.prepare(noop, (number,), {}, {"partition": partition} if partition else {})
            for number in range(min(1_000, each))
        ]
        for start in range(0, each, 1_000):
            app.engine.run(app.broker.publish(many[: each - start], 30.0))


def _cost(place: Place, waiting: int, lanes: int, *, refill: bool = False) -> float:
    with place.private() as folder:
        env = environment(folder / "queue.db", "process")
        return float(call("bench.lanes", "step_cost", env, waiting=waiting, lanes=lanes, refill=refill))


def _backlog(place: Place) -> Iterator[Result]:
    many, few = place.size(10_000_000, 100_000), 10_000
    runs = place.repeat(2, lambda: (_cost(place, many, 1), _cost(place, few, 1, refill=True)), extra=0)
    yield from _compared(
        "lanes/backlog", f"claim + settle, {many:,} waiting", f"{few:,} waiting", runs, Goal(1.1, 1.3, "less")
    )


def _lanes(place: Place) -> Iterator[Result]:
    waiting, many = place.size(2_000_000, 400_000), place.size(5_000, 1_000)
    runs = place.repeat(3, lambda: (_cost(place, waiting, many), _cost(place, waiting, 1)), extra=1)
    yield from _compared("lanes/lanes", f"claim + settle, {many:,} lanes", "1 lane", runs, Goal(1.2, 1.5, "less"))


def _compared(
    name: str, what: str, against: str, runs: list[tuple[tuple[float, float], float]], goal: Goal
) -> Iterator[Result]:
    first = tuple(Reading(both[0], foreign) for both, foreign in runs)
    second = tuple(Reading(both[1], foreign) for both, foreign in runs)
    yield Result(name, what, "µs/task", first, None, "process")
    yield Result(f"{name}/base", f"the same with {against}", "µs/task", second, None, "process")
    yield Result(f"{name}/ratio", "the first ÷ the second", "×", ratios(first, second), goal, "process")


MEASURES = (
    Measure("backlog", "the cost of a step by how much waits", _backlog),
    Measure("lanes", "the cost of a step by the number of lanes", _lanes),
)
