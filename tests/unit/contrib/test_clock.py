"""Time that passes when a test says so."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from penstock.contrib.clock import TravelClock


def test_it_begins_now_and_stands_still() -> None:
    before = time.time()
    clock = TravelClock()
    assert before <= clock.time() <= time.time()
    assert clock.time() == clock.time() == clock.monotonic()


def test_it_moves_and_rings() -> None:
    clock, rings = TravelClock(100.0), list[float]()
    clock.listeners.append(lambda: rings.append(clock.time()))
    clock.advance(5)
    clock.advance(timedelta(hours=1))
    clock.move_to(datetime.fromtimestamp(4000, UTC))
    assert rings == [105.0, 3705.0, 4000.0]


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), timedelta(days=-1)])
def test_time_does_not_go_back(amount: float) -> None:
    with pytest.raises(ValueError, match="time passes by 0 seconds or more"):
        TravelClock().advance(amount)


def test_dates_need_a_timezone() -> None:
    with pytest.raises(ValueError, match="has no timezone"):
        TravelClock(0.0).move_to(datetime(2030, 1, 1))
