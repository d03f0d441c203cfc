"""Ticks that wait, purely."""

from __future__ import annotations

from penstock.beat.backlog import Backlog
from penstock.beat.line import MOST_CAUGHT_UP, CatchUp, Line, Tick
from penstock.message import VERSION, Message
from penstock.schedules import schedule


def tick(moment: float, name: str = "line", queue: str = "q", catch_up: CatchUp = "latest") -> Tick:
    line = Line(name, schedule(1.0), Message(VERSION, "task", b"", queue=queue), catch_up=catch_up)
    return Tick(line, moment, moment)


def moments(ready: list[list[Tick]]) -> list[list[float]]:
    return [[one.moment for one in ticks] for ticks in ready]


def test_by_queue_in_order() -> None:
    backlog = Backlog()
    backlog.add([tick(3, "a"), tick(1, "b"), tick(2, "c", "other")])
    assert moments(backlog.ready(0)) == [[1, 3], [2]]
    assert backlog.oldest() == 1


def test_the_newest_of_a_line_replaces_what_waits_unless_all_are_wanted() -> None:
    backlog, old = Backlog(), tick(1)
    backlog.add([old])
    assert backlog.add([tick(2)]) == [old]
    assert backlog.add([tick(1, "all", catch_up="all"), tick(2, "all", catch_up="all")]) == []
    assert moments(backlog.ready(0)) == [[1, 2, 2]]


def test_all_have_an_end_too() -> None:
    backlog = Backlog()
    assert backlog.add([tick(n, catch_up="all") for n in range(MOST_CAUGHT_UP + 1)])[0].moment == 0
    assert backlog.oldest() == 1


def test_a_full_queue_is_tried_again_when_it_says_within_bounds() -> None:
    backlog = Backlog()
    waiting = tick(1)
    backlog.add([waiting])
    assert backlog.refused("q", 3600.0, 10.0) is True
    assert backlog.refused("q", 3600.0, 10.0) is False
    assert (backlog.ready(14.9), backlog.wake(11.0)) == ([], 4.0)
    assert moments(backlog.ready(15.0)) == [[1]]
    assert backlog.accepted("q") is True
    assert backlog.accepted("q") is False
    backlog.done([waiting])
    assert (backlog.ready(0), backlog.wake(0), backlog.oldest()) == ([], None, None)


def test_what_is_too_late_or_gone_is_given_up() -> None:
    backlog = Backlog()
    late, kept, gone = tick(0, "late", catch_up="none"), tick(0, "kept"), tick(0, "gone")
    backlog.add([late, kept, gone])
    assert backlog.drop_late(60.0) == []
    assert backlog.drop_late(60.1) == [late]
    backlog.forget(["gone"])
    assert backlog.ready(0) == [[kept]]
