"""What the check of the bound costs a publish: the same call with the check and without it, by turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator

import msgspec

from bench.machine import Meter
from bench.measure import Goal, Reading, Result
from bench.place import URL, Place, call
from bench.pressure.overload import LATENCY
from bench.pressure.pressed import PRESSED, Pressed
from penstock.engines.sqlite.counting import ADD, Counters
from penstock.queue import MAX_LENGTH

CALLS = 200
"""In one turn."""


def microseconds(turns: int) -> tuple[float, float]:
    """CPU time of one call with the check, and of one that only counts; the median of the turns."""
    from bench.pressure.tasks import app, work

    checked = Counters.admit

    def counted(self: Counters, queue: int, count: int, size: int) -> bool:
        self._db.hot(ADD, (count, size, queue, 0))
        return True

    ways = (checked, counted)
    taken: tuple[list[float], list[float]] = ([], [])
    work.delay(0)
    for turn in range(2 * turns):
        Counters.admit = ways[turn % 2]  # type: ignore[method-assign]  # what would be without it
        started = time.process_time()
        for number in range(CALLS):
            work.delay(number)
        taken[turn % 2].append((time.process_time() - started) / CALLS * 1e6)
    Counters.admit = checked  # type: ignore[method-assign]  # as it was
    app.close()
    return statistics.median(taken[0]), statistics.median(taken[1])


def admission(place: Place) -> Iterator[Result]:
    turns = place.size(100, 5)

    def once() -> tuple[float, float]:
        with place.private() as folder:
            pressed = Pressed(str(folder / "ends"), 0.0, MAX_LENGTH, LATENCY)
            env = {
                **os.environ,
                URL: f"sqlite:///{folder / 'queue.db'}?durability=process",
                PRESSED: msgspec.json.encode(pressed).decode(),
            }
            first, second = call("bench.pressure.admission", "microseconds", env, turns=turns)
            return first, second

    with Meter() as meter:
        pairs = [once() for _ in range(place.size(3, 1))]
    readings = tuple(Reading(one - other, meter.foreign) for one, other in pairs)
    note = f"a publish takes {statistics.median(one for one, _ in pairs):.1f} µs with it"
    yield Result("admission", "check of the bound in a publish", "µs", readings, Goal(3, 6, "less"), "process", note)
