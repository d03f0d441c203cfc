"""How many retries a process has."""

from __future__ import annotations

from itertools import takewhile

from penstock.pressure.budget import LEAST, SECONDS, RetryBudget

MINIMUM = int(LEAST * SECONDS)


def spent(budget: RetryBudget, now: float, most: int = 10_000) -> int:
    """How many it lets go at once."""
    return sum(1 for _ in takewhile(lambda _: budget.spend(now), range(most)))


def test_a_tenth_of_what_was_published_may_be_tried_again() -> None:
    budget = RetryBudget(0.1)
    for _ in range(5_000):
        budget.published(100.0)
    assert spent(budget, 100.5) == 500
    assert spent(budget, 109.9) == 0, "it is the same ten seconds"


def test_what_is_not_spent_is_lost_after_ten_seconds() -> None:
    budget = RetryBudget(0.1)
    for _ in range(5_000):
        budget.published(100.0)
    assert spent(budget, 100.0 + SECONDS) == MINIMUM


def test_who_seldom_publishes_may_try_again_too() -> None:
    budget = RetryBudget(0.1)
    budget.published(100.0)
    assert spent(budget, 100.0) == MINIMUM
    assert spent(budget, 105.0) == 0
    assert spent(budget, 100.0 + SECONDS) == MINIMUM


def test_over_a_long_time_it_is_a_tenth() -> None:
    budget, retries = RetryBudget(0.1), 0
    for tick in range(100_000):  # a hundred seconds, a thousand publishes each
        now = tick / 1_000
        budget.published(now)
        retries += budget.spend(now)
    assert 9_500 < retries <= 10_000 + MINIMUM


def test_a_clock_that_stands_still_for_an_hour_changes_nothing() -> None:
    budget = RetryBudget(0.5)
    for _ in range(100):
        budget.published(0.0)
    assert spent(budget, 3_600.0) == MINIMUM


def test_no_part_is_only_the_least_and_none_is_no_bound() -> None:
    assert spent(RetryBudget(0.0), 5.0) == MINIMUM
    assert spent(RetryBudget(None), 5.0) == 10_000
