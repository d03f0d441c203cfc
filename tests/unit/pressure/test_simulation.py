"""The simulation is what its formulas say where they are known, and shows what the law promises."""

from __future__ import annotations

from random import Random

import pytest

from penstock.on_full import Backoff
from penstock.pressure.budget import RetryBudget
from penstock.pressure.simulation import Bound, Governed, Outcome, Stubborn, simulate, slower, steady

MEAN, THREADS = 0.04, 8
CAPACITY = THREADS / MEAN


def overload(bound: Bound, times: float, seed: int = 1) -> Outcome:
    return simulate(
        bound,
        arrivals=CAPACITY * times,
        threads=THREADS,
        service=steady(MEAN),
        patience=2.0,
        seconds=40.0,
        capacity=CAPACITY,
        warmup=20.0,
        seed=seed,
    )


def test_it_repeats_itself_and_seeds_differ() -> None:
    assert overload(Bound(50), 0.9) == overload(Bound(50), 0.9)
    assert overload(Bound(50), 0.9) != overload(Bound(50), 0.9, seed=2)


def test_one_server_waits_as_erlang_says() -> None:
    """M/M/1 at 70 %: the mean time in the system is 1 / (1 - 0.7) of a transaction, and so p99 is 4.6 times that."""
    found = simulate(
        Bound(),
        arrivals=70.0,
        threads=1,
        service=lambda random, _: random.expovariate(100.0),
        patience=1.0,
        seconds=2_000.0,
        capacity=100.0,
    )
    assert found.p99 == pytest.approx(4.605 / 30, rel=0.1)
    assert found.goodput == pytest.approx(0.7, rel=0.05)


def test_times_have_their_mean() -> None:
    random, service = Random(1), slower(0.04, 4.0, since=10.0)
    assert sum(service(random, 0.0) for _ in range(20_000)) / 20_000 == pytest.approx(0.04, rel=0.02)
    assert sum(service(random, 10.0) for _ in range(20_000)) / 20_000 == pytest.approx(0.16, rel=0.02)


@pytest.mark.parametrize("load", [1.5, 3.0])
def test_the_law_keeps_its_latency_and_the_threads_busy(load: float) -> None:
    governed, unbounded = overload(Governed(2.0), load), overload(Bound(), load)
    assert governed.p99 <= 2.1
    assert governed.goodput > 0.95
    assert governed.refused == pytest.approx(1 - 1 / load, abs=0.05)
    assert unbounded.goodput < 0.2
    assert unbounded.longest > 3_000


def test_the_law_follows_a_transaction_that_becomes_slower() -> None:
    found = {
        name: simulate(
            bound,
            arrivals=300.0,
            threads=THREADS,
            service=slower(MEAN, 4.0, since=20.0),
            patience=2.0,
            seconds=90.0,
            capacity=CAPACITY / 4,
            warmup=40.0,
        )
        for name, bound in (("fixed", Bound(400)), ("law", Governed(2.0)))
    }
    assert found["fixed"].p99 > 7.0
    assert found["law"].p99 < 2.3
    assert found["law"].goodput > 0.9


def test_most_is_in_time_soon_after_transactions_became_slower() -> None:
    """What was let in before cannot be; the twenty seconds after the change, at three times the load."""
    found = simulate(
        Governed(2.0),
        arrivals=3 * CAPACITY,
        threads=THREADS,
        service=slower(MEAN, 2.0, since=20.0),
        patience=2.0,
        seconds=40.0,
        capacity=CAPACITY / 2,
        warmup=20.0,
    )
    assert found.goodput > 0.7


def stubborn(part: float | None) -> Outcome:
    return simulate(
        Bound(400),
        arrivals=CAPACITY * 3,
        threads=THREADS,
        service=steady(MEAN),
        patience=2.0,
        seconds=60.0,
        capacity=CAPACITY,
        warmup=20.0,
        stubborn=Stubborn(Backoff(), RetryBudget(part)),
    )


def test_retries_multiply_the_load_without_a_budget_and_are_a_tenth_of_it_with_one() -> None:
    bounded, unbounded = stubborn(0.1), stubborn(None)
    assert 1.05 < bounded.tries <= 1.1
    assert unbounded.tries > 3
    assert bounded.goodput >= unbounded.goodput
