"""The time line of a limit: rate, burst, cost and concurrency, as pure decisions."""

from __future__ import annotations

from itertools import repeat
from random import Random

import pytest

from penstock.limiting import GRACE, LAG, Limiter, admit, cost_of, has_expired, is_spent, opens, renewed
from penstock.message import Limit

NOW = 1_700_000_000.0


def handed_out(limiter: Limiter, moments: list[float], cost: float = 1.0, most: int = 1000) -> list[tuple[float, int]]:
    """How many went at each of these moments, at each of which plenty waits."""
    out = []
    for moment in moments:
        admission = admit(limiter, [cost] * most, 0, moment)
        limiter = admission.after
        out.append((moment, admission.count))
    return out


def test_without_a_rate_all_may_go() -> None:
    admission = admit(Limiter(), [1.0, 5.0], 100, NOW)
    assert (admission.count, admission.again) == (2, None)
    assert opens(Limiter(), 1.0, 100) == 0.0


def test_one_at_a_time_and_the_next_when_it_is_due() -> None:
    admission = admit(Limiter(rate=2.0), repeat_costs(5), 0, NOW)
    assert admission.count == 1
    again = admission.again
    assert again == pytest.approx(NOW + 0.5 - LAG, abs=1e-6), "a new line lags, as one that paused does"
    assert admit(admission.after, repeat_costs(5), 0, again - 0.001).count == 0
    second = admit(admission.after, repeat_costs(5), 0, again)
    assert second.count == 1
    assert second.again == pytest.approx(again + 0.5, abs=1e-6)


def test_a_burst_goes_at_once_and_is_paid_off() -> None:
    admission = admit(Limiter(rate=10.0, burst=5.0), repeat_costs(20), 0, NOW)
    assert admission.count == 5
    assert admission.again == pytest.approx(NOW + 0.1 - LAG, abs=1e-6)
    assert sum(count for _, count in handed_out(admission.after, [NOW + 10.0])) == 5


def test_cost_is_what_a_message_takes() -> None:
    admission = admit(Limiter(rate=10.0, burst=10.0), [4.0, 4.0, 4.0, 0.1], 0, NOW)
    assert admission.count == 2, "and what is behind keeps its place, however small"
    assert admission.again == pytest.approx(NOW + 0.2 - LAG, abs=1e-6)


def test_more_than_a_burst_waits_for_a_full_one_and_is_paid_off_afterwards() -> None:
    limiter = Limiter(rate=10.0, burst=5.0)
    small = admit(limiter, [1.0], 0, NOW)
    large = admit(small.after, [100.0], 0, NOW)
    assert (large.count, large.again) == (0, pytest.approx(NOW + 0.1 - LAG, abs=1e-6))
    large = admit(small.after, [100.0, 1.0], 0, NOW + 0.1)
    assert large.count == 1
    assert large.again == pytest.approx(NOW + 0.1 + 10.0 - 0.4 - LAG, abs=1e-6)


def test_concurrency_counts_what_is_leased() -> None:
    limiter = Limiter(concurrency=3)
    assert admit(limiter, repeat_costs(5), 1, NOW).count == 2
    full = admit(limiter, repeat_costs(5), 3, NOW)
    assert (full.count, full.again) == (0, None), "a settlement tells, not the clock"
    assert opens(limiter, 1.0, 3) is None
    assert admit(limiter, repeat_costs(5), 4, NOW).count == 0


def test_both_hold() -> None:
    limiter = Limiter(rate=1.0, burst=2.0, concurrency=3)
    assert admit(limiter, repeat_costs(5), 2, NOW).count == 1
    assert admit(limiter, repeat_costs(5), 0, NOW).count == 2


def test_workers_who_ask_a_little_late_catch_up() -> None:
    random, moment, moments = Random(7), NOW, []
    while moment < NOW + 60:
        moment += 0.001 + random.uniform(0.0, LAG * 0.9)
        moments.append(moment)
    went = sum(count for _, count in handed_out(Limiter(rate=1000.0), moments))
    assert went == pytest.approx(60_000, rel=0.005)


def test_never_more_than_the_bound_over_any_stretch() -> None:
    random, moment, moments = Random(8), NOW, []
    while moment < NOW + 20:
        moment += random.choice((0.0, 0.001, 0.01, 0.3, 2.0))
        moments.append(moment)
    rate, burst = 40.0, 7.0
    events = [one for one in handed_out(Limiter(rate, burst), moments) if one[1]]
    for first in range(len(events)):
        total = 0
        for moment, count in events[first:]:
            total += count
            assert total <= burst + rate * (moment - events[first][0] + LAG) + 1e-3


def test_a_pause_earns_a_burst_and_no_more() -> None:
    limiter = admit(Limiter(rate=10.0, burst=3.0), repeat_costs(3), 0, NOW).after
    assert admit(limiter, repeat_costs(50), 0, NOW + 3600).count == 3


def test_what_has_expired_takes_nothing() -> None:
    assert [cost_of(4.0, expires, NOW) for expires in (None, NOW + 0.001, NOW, NOW - 60)] == [4.0, 4.0, 0.0, 0.0]


def test_fifty_that_have_expired_go_before_the_one_that_lives() -> None:
    limiter = Limiter(rate=1 / 60)
    admission = admit(limiter, [0.0] * 50 + [1.0, 0.0, 1.0], 0, NOW)
    assert admission.count == 52
    assert admission.after == admit(limiter, [1.0], 0, NOW).after, "it alone has paid"
    assert admission.again == pytest.approx(NOW + 60 - LAG, abs=1e-6)
    assert admit(limiter, [0.0] * 50, 0, NOW).after == limiter


def test_what_has_expired_waits_for_no_debt_but_for_a_place() -> None:
    owing = Limiter(rate=1.0, concurrency=2, full=NOW + 3600)
    assert admit(owing, [0.0, 0.0, 0.0], 0, NOW).count == 2
    assert opens(owing, 0.0, 1) == 0.0
    assert opens(owing, 0.0, 2) is None


def test_a_worker_judges_by_the_moment_at_which_the_limit_let_it_go() -> None:
    assert has_expired(NOW, None, NOW)
    assert not has_expired(NOW, None, NOW - 0.001)
    assert has_expired(NOW, NOW, NOW - 3600), "it has not paid, though this clock is late"
    assert not has_expired(NOW, NOW - 0.001, NOW + 0.5), "it has paid, though this clock is early"
    assert has_expired(NOW, NOW - 0.001, NOW + GRACE), "it has waited for too long since"


def test_newer_parameters_hold_and_old_debts_are_paid_at_the_new_rate() -> None:
    limiter = admit(Limiter(rate=1.0, burst=10.0), repeat_costs(10), 0, NOW).after
    faster = renewed(limiter, Limit("k", rate=10.0, burst=10.0), NOW)
    assert (faster.rate, faster.full) == (10.0, pytest.approx(NOW + 1.0, abs=0.01))
    lifted = renewed(limiter, Limit("k"), NOW)
    assert admit(lifted, repeat_costs(50), 0, NOW).count == 50
    assert renewed(limiter, Limit("k", rate=1.0, burst=20.0, concurrency=2), NOW) == Limiter(1.0, 20.0, 2, limiter.full)


@pytest.mark.parametrize(
    ("owed", "old", "new", "burst", "wanted"),
    [
        (
            10.0,
            10.0,
            0.1,
            1.0,
            10.0,
        ),  # 100 units would take 1,000 s, though no more than a burst of 1 may be owed for long
        (10.0, 10.0, 0.1, 5.0, 50.0),  # of which a burst of 5 takes 50 s
        (0.3, 10.0, 0.1, 5.0, 30.0),  # within a burst every unit is paid
        (3600.0, 100.0, 1.0, 1.0, 3600.0),  # the clock was set back by an hour
        (3600.0, 1.0, 100.0, 1.0, 36.0),
        (1000.0, 1.0, 2.0, 10.0, 500.0),  # a dear call is paid off at the higher rate
        (-0.02, 10.0, 0.1, 1.0, -0.02),  # nothing is owed
    ],
)
def test_a_debt_is_paid_at_the_new_rate_but_takes_no_longer_than_it_did_or_a_burst_does(
    owed: float, old: float, new: float, burst: float, wanted: float
) -> None:
    after = renewed(Limiter(old, 1.0, None, NOW + owed), Limit("k", new, burst), NOW)
    assert after.full - NOW == pytest.approx(wanted, abs=1e-5)


def test_two_releases_that_name_two_rates_by_turns_lose_no_debt() -> None:
    """Of calls that cost no more than a burst: never more goes than the higher rate allows."""
    limiter, went = Limiter(10.0), 0
    for turn in range(1000):
        now = NOW + turn / 100
        limiter = renewed(limiter, Limit("k", (10.0, 1.0)[turn % 2]), now)
        admission = admit(limiter, repeat_costs(5), 0, now)
        limiter, went = admission.after, went + admission.count
    assert went <= 1 + 10.0 * (10.0 + LAG)


def test_what_was_due_while_a_rate_changes_is_not_lost() -> None:
    limiter = Limiter(rate=10.0, full=NOW - 0.02)
    assert renewed(limiter, Limit("k", rate=20.0), NOW).full == NOW - 0.02


def test_forgotten_when_it_says_nothing() -> None:
    limiter = admit(Limiter(rate=1.0), [1.0], 0, NOW).after
    assert not is_spent(limiter, 0, NOW)
    assert not is_spent(limiter, 1, NOW + 5)
    assert is_spent(limiter, 0, NOW + 1.1)
    assert is_spent(Limiter(concurrency=1), 0, NOW)


@pytest.mark.parametrize("rate", [0.3, 3.0, 1000.0, 33_333.0])
def test_the_line_keeps_its_rate_for_long(rate: float) -> None:
    """Costs that no binary fraction is, added a hundred thousand times, with nobody late."""
    limiter, went, moment = Limiter(rate=rate), 0, NOW
    for _ in range(100_000):
        moment = opens(limiter, 1.0, 0) or NOW if went else NOW
        admission = admit(limiter, [1.0], 0, moment)
        limiter, went = admission.after, went + admission.count
    assert went == 100_000
    assert (moment - NOW + LAG) * rate == pytest.approx(99_999, rel=0.01)


def repeat_costs(count: int) -> list[float]:
    return list(repeat(1.0, count))
