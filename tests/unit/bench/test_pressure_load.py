"""What a load's notes come to; and that a load runs, from callers to notes."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from bench.measure import Reading, Result
from bench.place import Place
from bench.pressure.load import Call, Load, honest
from bench.pressure.offer import ACCEPTED, FAILED, REFUSED
from bench.pressure.picture import picture
from bench.pressure.site import Trial, site
from bench.pressure.sweep import LOADS, POLICIES


def call(
    number: int, due: float, outcome: int = ACCEPTED, count: int = 1, leaving: int = 0, after: float = 0.0
) -> Call:
    return Call(number, count, outcome, leaving, due, due, due, after)


def load(*calls: Call, takes: float = 0.5) -> Load:
    """Each task that is accepted takes so long."""
    accepted = [(one.number + more, one.due) for one in calls if one.outcome == ACCEPTED for more in range(one.count)]
    return Load(calls, [(number, due, due + takes) for number, due in accepted])


def test_what_is_late_or_refused_is_no_goodput() -> None:
    found = Load(
        [call(0, 0.0), call(1, 0.0), call(2, 0.5, REFUSED), call(3, 0.5, FAILED), call(4, 0.5)],
        [(0, 0.1, 0.4), (1, 0.4, 2.1), (4, 0.5, 0.7), (4, 0.7, 0.9), (99, 0.0, 0.1)],
    )
    assert found.goodput(0.0, 1.0, 2.0) == 2
    assert found.in_time(0.0, 1.0, 2.0) == 2
    assert found.refused(0.0, 1.0) == pytest.approx(1 / 5)
    assert (found.failed, found.lost, found.repeated) == (1, 0, 1)
    assert found.quantile(0.0, 1.0, 0.99) == 2.1


def test_what_was_accepted_and_never_ended_is_lost() -> None:
    found = Load([call(0, 0.0, count=3), call(7, 0.0)], [(0, 0.0, 0.1), (2, 0.1, 0.2), (7, 0.0, 0.3)])
    assert found.lost == 1
    assert found.quantile(0.0, 1.0, 0.99) == inf


def test_what_was_told_is_held_against_what_left() -> None:
    ended = [call(number, number / 10 - 0.5) for number in range(1, 101)]
    refused = [
        call(200, 1.0, REFUSED, leaving=16, after=1.55),
        call(201, 1.0, REFUSED, leaving=16, after=2.5),
        call(202, 1.0, REFUSED, count=50, leaving=50, after=5.0),
        call(203, 9.9, REFUSED, leaving=16, after=1.0),
    ]
    found = load(*ended, *refused)
    assert found.told(many=False) == [(1.55, pytest.approx(1.5)), (2.5, pytest.approx(1.5))]
    assert honest(found.told(many=False)) == 0.5
    assert found.told(many=True) == [(5.0, pytest.approx(4.9))]


def test_recovery_is_when_a_second_of_calls_is_as_before() -> None:
    calls = [call(number, number / 100) for number in range(1_000)]
    ends = [(one.number, one.due, one.due + max(0.01, 4.0 - one.due)) for one in calls]
    assert Load(calls, ends).recovery(0.0, 10.0, 0.5) == pytest.approx(3.5, abs=0.11)
    assert load(*calls, takes=1.0).recovery(0.0, 10.0, 0.5) == inf


def test_the_picture_has_all_that_was_measured_and_simulated() -> None:
    points = tuple((load, load / 2) for load in LOADS)
    names = ("goodput", "p99", "goodput-simulated", "p99-simulated", "overtime")
    results = [
        Result(f"{name}/{policy}", "", "", (Reading(1.0),), points=points) for name in names for policy in POLICIES
    ]
    drawn = picture(results)
    assert drawn.count("<polyline") == 9
    assert drawn.count("<circle") == 2 * len(POLICIES) * len(LOADS)


def test_a_load_runs_from_its_callers_to_the_notes_of_its_tasks(tmp_path: Path) -> None:
    trial = Trial("sqlite", slots=2, seconds=0.005, length=20, latency=None)
    with site(Place(tmp_path, quick=True), trial) as there:
        capacity = there.capacity(0.4)
        seen = there.offer([(capacity * 3, 0.6)], asking=0)
    assert 0 < capacity < 2 / 0.005
    assert seen.died == 0
    assert seen.load.tasks
    assert (seen.load.lost, seen.load.failed, seen.load.repeated) == (0, 0, 0)
    assert 0.2 < seen.load.refused(seen.began, seen.began + 0.6) < 1.0
    assert seen.load.told(many=True)
