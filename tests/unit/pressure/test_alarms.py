"""The state machine of alarms: when one begins, and when it is over."""

from __future__ import annotations

import pytest

from penstock.pressure.alarms import LOOKS, MOST, Alarm, Alarms, Kind, PressureEvent, Reading


def full(value: float, queue: str = "mail") -> Reading:
    return Reading("full", queue, "", value, 0.7, 0.5)


def slow(value: float) -> Reading:
    return Reading("run_time", "mail", "t", value, 3.0, 2.0)


def states(events: list[PressureEvent]) -> list[str]:
    return [event.state for event in events]


def test_it_is_raised_once_and_cleared_once_whatever_happens_between_the_limits() -> None:
    alarms, seen = Alarms(), []
    values = (0.69, 0.7, 0.6, 0.9, 0.5, 0.7, 0.49, 0.6, 0.69, 0.71)
    for now, value in enumerate(values):
        seen += [(now, event.state) for event in alarms.look([full(value)], "", now)]
    assert seen == [(1, "raised"), (6, "cleared"), (9, "raised")]


def test_an_event_says_what_how_much_and_what_to_do() -> None:
    alarms = Alarms()
    [raised] = alarms.look([full(0.75)], "shop", 100.0)
    assert (raised.kind, raised.namespace, raised.queue, raised.value, raised.limit) == (
        "full",
        "shop",
        "mail",
        0.75,
        0.7,
    )
    assert raised.text == (
        "queue 'mail' is 75% full, warned of at 70%; at 100% its callers are refused: start more workers, or call less"
    )
    [cleared] = alarms.look([full(0.2)], "shop", 160.0)
    assert (cleared.since, cleared.at, cleared.value) == (100.0, 160.0, 0.2)
    assert cleared.text.startswith("over after 60 s: queue 'mail' is 20% full")


@pytest.mark.parametrize("kind", ["full", "age", "run_time", "slow_worker", "stuck_worker"])
def test_each_kind_has_words(kind: Kind) -> None:
    alarms = Alarms()
    reading = Reading(kind, "mail", "x\n", 5.0, 3.0, 2.0)
    events = [event for now in range(9) for event in alarms.look([reading], "", now)]
    assert states(events) == ["raised"]
    assert "5" in events[0].text
    assert "\n" not in events[0].text


def test_what_is_measured_by_chance_must_say_so_several_times() -> None:
    alarms = Alarms()
    looks = LOOKS["run_time"]
    assert [states(alarms.look([slow(9.0)], "", now)) for now in range(looks)] == [*[[]] * (looks - 1), ["raised"]]
    once = [9.0, 9.0, 1.0, 9.0, 9.0]
    other = Alarms()
    assert not any(other.look([slow(value)], "", now) for now, value in enumerate(once))
    assert states([e for now in range(looks) for e in alarms.look([slow(1.0)], "", now)]) == ["cleared"]


def test_what_is_not_read_any_more_is_over() -> None:
    alarms = Alarms()
    alarms.look([full(0.9)], "", 1.0)
    [event] = alarms.look([], "", 3.0)
    assert (event.state, event.text) == ("cleared", "over after 2 s; was: queue 'mail' is 90% full, warned of at 70%")
    assert not alarms.active


def test_who_leads_next_goes_on_without_ringing_again() -> None:
    first, second = Alarms(), Alarms()
    first.look([full(0.9)], "", 1.0)
    second.adopt(first.active)
    assert second.look([full(0.9)], "", 5.0) == []
    assert second.active == [Alarm("full", "mail", "", 0.9, 0.7, 1.0)]
    first.drop("mail")
    assert not first.active
    assert states(second.look([full(0.1)], "", 9.0)) == ["cleared"]


def test_there_is_a_bound() -> None:
    alarms = Alarms()
    events = alarms.look([full(1.0, f"q{number}") for number in range(MOST + 10)], "", 1.0)
    assert len(events) == len(alarms.active) == MOST
