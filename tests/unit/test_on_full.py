"""What callers want when a queue is full."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.on_full import Backoff, check_on_full


def test_it_waits_at_least_as_long_as_it_was_told_and_twice_as_much_more_each_time() -> None:
    backoff = Backoff(base=0.1, cap=1.0, deadline=1_000)
    assert [backoff.pause(tries, 2.0, 0.0, 0.0) for tries in (1, 2, 9)] == [2.0, 2.0, 2.0]
    longest = [backoff.pause(tries, 2.0, 0.0, 1.0) for tries in (1, 2, 3, 4, 5, 10_000)]
    assert longest == pytest.approx([2.1, 2.2, 2.4, 2.8, 3.0, 3.0])


def test_it_does_not_wait_for_what_would_be_too_late() -> None:
    backoff = Backoff(base=1.0, cap=1.0, deadline=10.0)
    assert backoff.pause(1, 2.0, 7.0, 1.0) == 3.0
    assert backoff.pause(1, 2.0, 7.1, 1.0) is None
    assert backoff.pause(1, 60.0, 0.0, 0.0) is None


@pytest.mark.parametrize(
    "bad", [{"base": 0}, {"cap": -1}, {"deadline": 100_000}, {"base": "1s"}, {"cap": float("nan")}]
)
def test_bad_numbers_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"Backoff: {next(iter(bad))} must be seconds above 0"):
        Backoff(**bad)


def test_what_else_there_is() -> None:
    for good in ("raise", "run-inline", Backoff()):
        check_on_full("on_full", good)
    with pytest.raises(ConfigError, match=r"on_full must be 'raise', 'run-inline' or a Backoff\(…\), not 'block'"):
        check_on_full("on_full", "block")
