"""How fast a queue drains, and what refused callers are told of it."""

from __future__ import annotations

from bisect import bisect_right
from heapq import heappop, heappush
from random import Random

import pytest

from penstock.draining import (
    FIRST_RETRY,
    JITTER,
    MAX_RETRY,
    MIN_RETRY,
    MOST,
    Drain,
    Drains,
    leaving,
    retry_after,
)


def test_nothing_is_known_before_there_are_two_readings() -> None:
    drain = Drain(gap=2.0)
    assert drain.read(0.0, 100, None) is None
    assert drain.read(0.05, 105, None) is None, "too short a time"
    assert drain.read(0.5, 150, None) == pytest.approx(100.0)


def test_the_rate_is_that_of_the_last_second_and_not_the_average() -> None:
    drain = Drain(gap=2.0)
    for tick in range(40):
        drain.read(tick / 4, tick * 250, None)  # 1000 a second for ten seconds
    for tick in range(1, 9):
        found = drain.read(10.0 + tick / 4, 10_000 + tick * 25, None)  # then 100
    assert found == pytest.approx(100.0, rel=0.05)


def test_few_tasks_make_it_look_back_further() -> None:
    drain = Drain(gap=2.0)
    found = None
    for second in range(21):
        found = drain.read(float(second), second // 4, None)
    assert found == pytest.approx(5 / 20)


def test_many_tasks_do_not_make_it_look_at_less_than_a_second() -> None:
    """They leave in bursts: whole batches are settled at once."""
    drain = Drain(gap=2.0)
    found = [drain.read(tick / 4, 1_000 * (tick // 2), None) for tick in range(12)]
    assert found[5:] == pytest.approx([2_000.0] * 7, rel=0.26)


def test_nothing_that_left_is_no_rate() -> None:
    drain = Drain(gap=2.0)
    assert [drain.read(second, 7, None) for second in range(5)] == [None] * 5


def test_a_time_in_which_it_may_have_been_empty_says_nothing() -> None:
    full = Drain(gap=2.0)
    full.read(0.0, 0, None)
    assert full.read(10.0, 5, None) == pytest.approx(0.5), "a full queue has more than five"
    looked_at = Drain(gap=0.0)
    looked_at.read(0.0, 0, 3)
    assert looked_at.read(1.0, 500, 900) is None, "it was empty in between: 500 left, and 3 were there"
    assert looked_at.read(2.0, 1_000, 900) == pytest.approx(500.0)


def test_another_queue_and_another_clock_begin_anew() -> None:
    drain = Drain(gap=2.0)
    drain.read(0.0, 1_000, None)
    assert drain.read(1.0, 3, None) is None
    assert drain.read(0.5, 10, None) is None


@pytest.mark.parametrize(
    ("rate", "excess", "depth", "told"),
    [
        (None, 1, 400, FIRST_RETRY),
        (240.0, 1, 400, 0.1),
        (160.0, 320, 400, 2.0),
        (10.0, 1, 2, 0.1),
        (1e6, 1, 400, MIN_RETRY),
        (0.01, 1, 400, MAX_RETRY),
    ],
)
def test_what_is_told(rate: float | None, excess: int, depth: int, told: float) -> None:
    assert retry_after(rate, excess, depth, 0.5) == pytest.approx(told)
    assert retry_after(rate, excess, depth, 0.0) == pytest.approx(told * (1 - JITTER))
    assert retry_after(rate, excess, depth, 1.0) == pytest.approx(told * (1 + JITTER))


def test_queues_are_kept_apart_and_are_not_too_many() -> None:
    now = 0.0
    drains = Drains(lambda: now, lambda: 0.5)
    drains.retry_after("slow", 0, 1, 100)
    drains.retry_after("fast", 0, 1, 100)
    now = 1.0
    assert drains.retry_after("slow", 10, 1, 100) == pytest.approx(2.4)
    assert drains.retry_after("fast", 100, 1, 100) == pytest.approx(0.24)
    for number in range(MOST):
        drains.retry_after(number, 0, 1, 1)
    assert drains.retry_after("slow", 20, 1, 100) == FIRST_RETRY


@pytest.mark.parametrize(
    ("threads", "mean", "bound", "slower"),
    [
        (8, 0.04, 400, 1.0),
        (1, 0.2, 50, 1.0),
        (2, 0.001, 1_000, 1.0),
        (4, 1.0, 40, 1.0),
        (8, 0.04, 10, 1.0),
        (8, 0.04, 400, 4.0),
        (2, 0.001, 1_000, 4.0),
    ],
)
def test_nine_of_ten_who_are_refused_under_threefold_load_are_told_the_truth(
    threads: int, mean: float, bound: int, slower: float
) -> None:
    """The queue has drained at another rate for an hour when the overload comes, and may be `slower` from the middle
    on. All times are chance, log-normal."""
    random = Random(1)
    now = settled = 0
    seconds = max(20.0, 200 * mean / threads)
    drains = Drains(lambda: now, random.random)
    depth, running, left, told = 0, list[float](), list[float](), list[tuple[float, int, float]]()
    settled = 3_600  # before, one a second
    coming = 0.0
    while coming < seconds:
        now = coming
        while running and running[0] <= now:
            left.append(heappop(running))
            depth -= 1
            settled += 1
            if depth > len(running):
                heappush(running, left[-1] + _time(random, mean * (slower if left[-1] > seconds / 2 else 1)))
        if depth < bound:
            depth += 1
            if len(running) < threads:
                heappush(running, now + _time(random, mean * (slower if now > seconds / 2 else 1)))
        else:
            told.append((now, leaving(1, depth), drains.retry_after("queue", settled, 1, depth)))
        coming += random.expovariate(3 * threads / mean)
    good = known = 0
    for at, tasks, after in told:
        place = bisect_right(left, at) + tasks - 1
        if place < len(left):
            truth = min(MAX_RETRY, max(MIN_RETRY, left[place] - at))
            known += 1
            good += abs(after - truth) <= truth / 2
    assert known > 100
    assert good / known >= 0.9


def _time(random: Random, mean: float) -> float:
    return mean * random.lognormvariate(-0.125, 0.5)
