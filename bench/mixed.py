"""A few slow tasks among many fast ones: they must not hold up what waits behind them."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Counters, Place, call, environment, workers

SLOW, SLOTS = 4, 8


def fill(fast: int, slow: int) -> None:
    """`fast` tasks of 1 ms, with `slow` of 1 s evenly among the first four fifths of them."""
    from bench.tasks import app, sleep

    seconds = [0.001] * fast
    for number in range(slow):
        seconds.insert(fast * 4 * number // (5 * SLOW) + fast // 20, 1.0)
    sleep.delay_many((duration,) for duration in seconds)
    app.close()


def _seconds(place: Place, fast: int, slow: int) -> float:
    """From the first task that is settled to the last; the slow ones have ended before."""
    with place.private() as folder:
        env = environment(folder / "queue.db", "process")
        call("bench.mixed", "fill", env, fast=fast, slow=slow)
        counters = Counters(folder / "queue.db")
        try:
            with workers(env, f"--concurrency={SLOTS}") as started:
                begun = counters.settled_reaches(1, started, pause=0.001, timeout=30)
                return counters.settled_reaches(fast + slow, started, timeout=120) - begun
        finally:
            counters.close()


def _mixed(place: Place) -> Iterator[Result]:
    fast = place.size(40_000, 8_000)
    runs = place.repeat(2, lambda: (_seconds(place, fast, SLOW), _seconds(place, fast, 0)), extra=1)
    mixed = tuple(Reading(both[0], foreign) for both, foreign in runs)
    alone = tuple(Reading(both[1], foreign) for both, foreign in runs)
    yield Result("mixed", f"{fast:,} × 1 ms with {SLOW} × 1 s, {SLOTS} slots", "s", mixed, None, "process")
    yield Result("mixed/base", "the same without the slow ones", "s", alone, None, "process")
    yield Result("mixed/ratio", "the first ÷ the second", "×", ratios(mixed, alone), Goal(1.25, 1.6, "less"), "process")


MEASURES = (Measure("mixed", "slow tasks among fast ones", _mixed),)
