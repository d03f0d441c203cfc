"""The callers, in a process of their own: an open load by a timetable, and a closed one that shows the capacity."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import BinaryIO

from penstock import Penstock, QueueFull
from penstock.draining import FEW
from penstock.errors import PenstockError

ACCEPTED, REFUSED, FAILED = 0, 1, 2
CALL = struct.Struct("<qqqqdddd")
"""Number of the first task, how many they are, what became of it, how many tasks have to leave before another try is
worth while; when it was due, sent and answered; `retry_after`."""
ASKED = (20, 50, 100, 200)
"""Tasks in one of the calls that ask for more room than there can be."""
EVERY = 0.1
"""Seconds between two of those."""
PATIENCE = 60.0
"""Seconds for a worker to start."""
AHEAD, PAUSE = 200, 0.00125
"""Tasks that the closed load keeps in the queue, and seconds between two looks at one that is longer: calls come one by
one then, as tasks end, like those of the open load that are accepted."""


def open_loop(
    path: str, first: int, phases: Sequence[tuple[float, float]], callers: int, seed: int, asking: int | None
) -> float:
    """`phases` are (calls a second, seconds), at random (Poisson), at times that are fixed before the first. So many
    threads make them as `callers`, since one that waits for its answer must not hold up what is due. Notes all calls in
    `path`; returns when it began. In the phase `asking`, some calls of many tasks are made beside them."""
    from bench.pressure.tasks import app, work

    due = list(_timetable(Random(seed), phases))
    numbers, turn = itertools.count(first), itertools.count()
    began = time.monotonic() + 0.2
    with open(path, "wb") as notes:

        def call() -> None:
            while (mine := next(turn)) < len(due):
                at = began + due[mine]
                time.sleep(max(0.0, at - time.monotonic()))
                number = next(numbers)
                _note(notes, number, 1, at, lambda number=number: work.delay(number))

        def ask(asking: int) -> None:
            at, until = (began + sum(seconds for _, seconds in phases[:end]) for end in (asking, asking + 1))
            for size in itertools.cycle(ASKED):
                at += EVERY
                if at > until:
                    return
                time.sleep(max(0.0, at - time.monotonic()))
                mine = [next(numbers) for _ in range(size)]
                _note(notes, mine[0], size, at, lambda mine=mine: work.delay_many((one,) for one in mine))

        work.delay_many([])  # connected before the first is due
        _all([call] * callers + ([partial(ask, asking)] if asking is not None else []))
    app.close()
    return began


def closed_loop(path: str, first: int, callers: int, seconds: float) -> float:
    """Keep the queue filled for so long, but short; returns when it began: workers live by then."""
    from bench.pressure.tasks import QUEUE, app, work

    work.delay(first).get(timeout=PATIENCE)
    numbers = itertools.count(first + 1)
    began = time.monotonic()
    with open(path, "wb") as notes:

        def call() -> None:
            while time.monotonic() < began + seconds:
                if _waiting(app, QUEUE) > AHEAD:
                    time.sleep(PAUSE * callers)
                    continue
                number = next(numbers)
                _note(notes, number, 1, time.monotonic(), lambda number=number: work.delay(number))

        _all([call] * callers)
    app.close()
    return began


def _waiting(app: Penstock, queue: str) -> int:
    depth = app.engine.run(app.broker.depth(queue, ""))
    if depth is None:  # all that RabbitMQ tells is what is ready
        found = app.engine.run(app.engine.inspect.queues())
        depth = next((one.ready or 0 for one in found if one.name == queue), 0)
    return depth


def purge() -> int:
    from bench.pressure.tasks import QUEUE, app

    dropped = app.engine.run(app.engine.inspect.purge(QUEUE))
    app.close()
    return dropped


def _timetable(random: Random, phases: Sequence[tuple[float, float]]) -> Iterator[float]:
    start = 0.0
    for rate, seconds in phases:
        now = start + random.expovariate(rate)
        start += seconds
        while now < start:
            yield now
            now += random.expovariate(rate)


def _note(notes: BinaryIO, number: int, count: int, due: float, call: Callable[[], object]) -> None:
    sent, outcome, leaving, after = time.monotonic(), ACCEPTED, 0, 0.0
    try:
        call()
    except QueueFull as full:
        outcome, after = REFUSED, full.retry_after
        leaving = max(1, full.depth + count - full.limit, min(FEW, full.depth // 2))
    except PenstockError:
        outcome = FAILED
    notes.write(CALL.pack(number, count, outcome, leaving, due, sent, time.monotonic(), after))


def _all(targets: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
