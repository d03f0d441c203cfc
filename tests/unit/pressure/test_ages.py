"""How old what waits is, where the engine does not tell."""

from __future__ import annotations

from penstock.pressure.ages import Ages
from penstock.queue import QueueInfo


def info(ready: int | None, age: float | None = None) -> QueueInfo:
    return QueueInfo("mail", "", 100, 1 << 30, None, None, ready, None, None, None, age, None, None)


class Looks:
    def __init__(self) -> None:
        self._ages = Ages()

    def at(self, now: float, ready: int | None, head: float | None = None) -> float | None:
        """Monotonic and Unix time are a thousand apart."""
        found = info(ready)
        self._ages.note([found], now)
        return self._ages.aged(found, head, now + 1_000.0, now).oldest_age


def test_while_tasks_end_it_is_as_old_as_what_was_at_the_head() -> None:
    looks = Looks()
    assert looks.at(0.0, 9, 997.0) == 3.0
    assert looks.at(1.0, 9, 998.5) == 2.5


def test_where_none_ends_it_gets_older() -> None:
    looks = Looks()
    assert [looks.at(now, 9, 997.0) for now in (0.0, 60.0)] == [3.0, 63.0]


def test_what_came_into_an_empty_queue_came_after_that() -> None:
    looks = Looks()
    assert looks.at(3_600.0, 0, 1_000.0) is None
    assert looks.at(3_601.0, 1, 1_000.0) == 1.0, "the last task ended an hour ago, and this one has just come"


def test_where_nothing_is_known_it_is_as_old_as_it_is_known_to_be_there() -> None:
    looks = Looks()
    assert [looks.at(now, 1) for now in (0.0, 1.0, 2.0)] == [0.0, 1.0, 2.0]


def test_what_an_engine_tells_stays_and_what_nobody_counts_has_no_age() -> None:
    ages = Ages()
    found = info(1, 7.0)
    ages.note([found], 0.0)
    assert ages.aged(found, 1.0, 1_000.0, 0.0) is found
    assert Looks().at(0.0, None, 1.0) is None


def test_a_clock_that_is_ahead_makes_nothing_younger_than_now() -> None:
    assert Looks().at(0.0, 1, 1_005.0) == 0.0
