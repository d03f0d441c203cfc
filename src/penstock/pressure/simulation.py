"""What a bound does to a queue under an open load: callers who come whether or not the others were served.

Pure, seeded, in virtual time: arrivals at random (Poisson), `threads` servers, first come first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf, log
from random import Random

from msgspec import Struct

from penstock.draining import Drains
from penstock.on_full import Backoff
from penstock.pressure.budget import RetryBudget
from penstock.pressure.law import AIM, length, rate
from penstock.pressure.samples import Note, Window

Service = Callable[[Random, float], float]
"""Seconds of one transaction that starts at a time."""
SPREAD = 0.5
"""Sigma of the logarithm of transaction times."""


class Outcome(Struct, frozen=True):
    """`goodput`: tasks a second that were done within the latency that their caller waits for, as a part of what the
    threads can do. `p50` and `p99` in seconds, from the call to the end, of what was accepted. `refused` is a part of
    the calls; `tries` are what came to the queue for each call."""

    goodput: float
    p50: float
    p99: float
    refused: float
    longest: int
    tries: float = 1.0


class Stubborn(Struct, frozen=True):
    """Callers of one process who try again when they were refused."""

    backoff: Backoff
    budget: RetryBudget


class Bound:
    """Refuses beyond so many tasks in the queue, those that run counted."""

    def __init__(self, tasks: float = inf) -> None:
        self.tasks = tasks

    def look(self, now: float, threads: int) -> None:
        """Once a second."""

    def ran(self, seconds: float) -> None:
        """A transaction has ended."""


class Governed(Bound):
    """The bound by the law, from the sampled times."""

    def __init__(self, max_latency: float, static: float = 1_000_000) -> None:
        super().__init__(static)
        self._max_latency = max_latency
        self._static = static
        self._window = Window()
        self._fresh: list[Note] = []

    def look(self, now: float, threads: int) -> None:
        self._window.pass_on(self._fresh, 1.0)
        self._fresh = []
        known = rate(self._window.samples.of_queue(""), threads, now)
        self.tasks = min(self._static, length(self._max_latency * AIM, known)) if known else self._static

    def ran(self, seconds: float) -> None:
        self._fresh.append(("", "", seconds, 1.0, 0.0, 0.0))


def steady(mean: float, spread: float = SPREAD) -> Service:
    """Log-normal times of this mean, the same all the time."""
    return lambda random, _now: mean * random.lognormvariate(-spread * spread / 2, spread)


def slower(mean: float, factor: float, since: float) -> Service:
    """The same, `factor` times as slow from `since` on."""
    usual = steady(mean)
    return lambda random, now: usual(random, now) * (factor if now >= since else 1.0)


def simulate(
    bound: Bound,
    *,
    arrivals: float,
    threads: int,
    service: Service,
    patience: float,
    seconds: float,
    capacity: float,
    warmup: float = 0.0,
    seed: int = 1,
    stubborn: Stubborn | None = None,
) -> Outcome:
    """`arrivals` a second for `seconds`; callers have use for what ends within `patience` of their call. Only calls
    after `warmup` are counted. `capacity`: tasks a second that `goodput` is a part of."""
    random = Random(seed)
    waiting: deque[float] = deque()
    running: list[tuple[float, float, float]] = []
    """(end, call, seconds of the transaction)"""
    returning: list[tuple[float, float, int]] = []
    """(when, call, tries by now)"""
    waits: list[float] = []
    calls = tries = refused = longest = settled = 0
    now, look = 0.0, 1.0
    drains = Drains(lambda: now, random.random)
    coming = _pause(random, arrivals)
    while coming < seconds or running:
        now = min(coming if coming < seconds else inf, *(queue[0][0] for queue in (running, returning) if queue), inf)
        while look <= now:
            bound.look(look, threads)
            look += 1.0
        if running and running[0][0] == now:
            _, call, took = heappop(running)
            bound.ran(took)
            settled += 1
            if call >= warmup:
                waits.append(now - call)
        else:
            if returning and returning[0][0] == now:
                _, call, tried = heappop(returning)
            else:
                call, tried = now, 0
                coming += _pause(random, arrivals)
                calls += now >= warmup
            tries += now >= warmup
            depth = len(waiting) + len(running)
            if depth < bound.tasks:
                waiting.append(call)
            elif stubborn is not None and (pause := _again(stubborn, drains, settled, depth, call, now, tried, random)):
                heappush(returning, (now + pause, call, tried + 1))
            else:
                refused += call >= warmup
        longest = max(longest, len(waiting) + len(running))
        while waiting and len(running) < threads:
            took = service(random, now)
            heappush(running, (now + took, waiting.popleft(), took))
    good = sum(wait <= patience for wait in waits) / (seconds - warmup) / capacity
    waits.sort()
    counted = max(1, calls)
    return Outcome(good, _quantile(waits, 0.5), _quantile(waits, 0.99), refused / counted, longest, tries / counted)


def _again(
    stubborn: Stubborn, drains: Drains, settled: int, depth: int, call: float, now: float, tried: int, random: Random
) -> float | None:
    """Seconds until a refused caller tries again, if he does."""
    if not tried:
        stubborn.budget.published(now)
    told = drains.retry_after("", settled, 1, depth)
    pause = stubborn.backoff.pause(tried + 1, told, now - call, random.random())
    return pause if pause is not None and stubborn.budget.spend(now) else None


def _pause(random: Random, arrivals: float) -> float:
    return -log(1.0 - random.random()) / arrivals


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
