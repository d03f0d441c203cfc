"""How each client is timed, so that all are timed alike."""

import random
import time
from collections.abc import Callable

GAP = (0.003, 0.010)
"""Seconds between two calls: long enough for a worker to fall asleep."""


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def sampled(call_and_get: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each call from its start until its result is here, after 20 that do not count."""
    for _ in range(20):
        call_and_get()
    taken = []
    for _ in range(count):
        time.sleep(random.uniform(*GAP))
        taken.append(seconds(call_and_get) * 1000)
    return taken
