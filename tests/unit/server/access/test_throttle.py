from __future__ import annotations

import pytest

from penstock.clock import ManualClock
from penstock.server.access.throttle import FORGET, LONGEST, Throttle, origin
from penstock.server.access.verified import Verified


def test_the_first_failures_cost_nothing_and_then_the_wait_doubles() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, allowance=3)
    within = [throttle.charge("a") for _ in range(2)]
    assert within == [True, True] and throttle.wait("a") == 0
    waits = []
    for _ in range(10):
        throttle.charge("a")
        waits.append(throttle.wait("a"))
        clock.advance(throttle.wait("a"))
        assert throttle.wait("a") == 0
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST, LONGEST]
    assert throttle.wait("b") == 0


def test_only_the_first_are_within_the_allowance() -> None:
    throttle = Throttle(ManualClock(), allowance=2)
    assert [throttle.charge("a") for _ in range(4)] == [True, True, False, False]


def test_a_success_forgives_and_time_forgets() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, allowance=1)
    throttle.charge("a")
    throttle.charge("a")
    throttle.forgive("a")
    assert throttle.wait("a") == 0 and throttle.charge("a")
    clock.advance(FORGET + 1)
    assert throttle.charge("a")


def test_a_million_failures_overflow_nothing() -> None:
    throttle = Throttle(ManualClock(), allowance=1)
    for _ in range(2_000):
        throttle.charge("a")
    assert throttle.wait("a") == LONGEST


def test_the_table_is_bounded_and_forgets_who_failed_longest_ago() -> None:
    throttle = Throttle(ManualClock(), allowance=1, most=3)
    for key in ("a", "b", "a", "c", "d"):
        throttle.charge(key)
    assert len(throttle) == 3
    assert throttle.wait("a") and not throttle.wait("b")


def test_what_was_verified_is_known_for_one_generation() -> None:
    verified = Verified()
    verified.learn(7, "ada", "secret")
    assert verified.knows(7, "ada", "secret")
    assert not verified.knows(7, "ada", "secret", "address")
    assert not verified.knows(7, "adas", "ecret") and not verified.knows(7, "ada\0secret")
    assert not verified.knows(8, "ada", "secret")
    assert not verified.knows(7, "ada", "secret")  # it was forgotten


def test_it_keeps_no_secret_and_not_without_end() -> None:
    verified = Verified(most=3)
    for number in range(10):
        verified.learn(1, "ada", f"secret{number}")
    assert len(verified) == 3 and verified.knows(1, "ada", "secret9") and not verified.knows(1, "ada", "secret0")
    assert "secret" not in repr(vars(verified))
    assert verified.digest("ada", "\ud800") != Verified().digest("ada", "\ud800")


@pytest.mark.parametrize(
    ("address", "charged"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::a", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::b", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
        ("/run/penstock.sock", "/run/penstock.sock"),
    ],
)
def test_a_network_of_ipv6_is_one_origin(address: str, charged: str) -> None:
    assert origin(address) == charged
