"""Which ticks are published, purely: jitter, policies, and how long a tick is remembered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, crontab, once, schedule
from penstock.beat.agenda import Agenda
from penstock.beat.line import MOST_CAUGHT_UP, SLACK, Line, Tick, tick_id
from penstock.beat.missed import due, first_after, newest
from penstock.message import VERSION, Dedup, Fence, Message

CALL = Message(VERSION, "task", b"[[],{}]")


def line(plan: Any = 10.0, **options: Any) -> Line:
    return Line("line", schedule(plan) if isinstance(plan, float) else plan, CALL, **options)


@given(st.floats(0.1, 1e5), st.floats(0, 1e9), st.floats(0, 1e8), st.booleans())
def test_the_newest_by_halves_is_the_newest(every: float, start: float, span: float, strictly: bool) -> None:
    plan = schedule(every)
    low = plan.next_after(start)
    assert low is not None
    high = low + span
    found = newest(plan, low, high, strictly=strictly)
    following = plan.next_after(found)
    assert following is not None
    if found != low or not strictly:
        assert found < high if strictly else found <= high
    assert following >= high if strictly else following > high


def test_months_of_seconds_are_not_walked_through() -> None:
    class Counting:
        asked = 0

        def next_after(self, moment: float) -> float:
            self.asked += 1
            return float(int(moment) + 1)

    plan = Counting()
    assert newest(plan, 1.0, 10_000_000.5) == 10_000_000.0
    assert plan.asked < 120


@given(st.floats(1, 1e4), st.floats(0.1, 2e4), st.floats(0, 2e9))
def test_jitter_is_the_same_for_all_and_keeps_the_order(every: float, jitter: float, start: float) -> None:
    one = line(every, jitter=jitter)
    tick = first_after(one, start)
    assert tick is not None
    assert tick.fires > start
    assert tick.moment <= tick.fires < tick.moment + min(jitter, every) + 1e-5
    again = first_after(line(every, jitter=jitter), tick.fires - 1e-6)
    assert again is not None
    assert again.moment == tick.moment
    following = due(tick, tick.fires).upcoming
    assert following is not None
    assert following.fires > tick.fires


def test_jitter_spreads() -> None:
    fires = [Line(f"line {n}", schedule(60.0), CALL, jitter=60).fires(60.0) - 60.0 for n in range(1000)]
    assert 25 < sum(fires) / 1000 < 35
    assert min(fires) < 2
    assert max(fires) > 58


@given(
    st.sampled_from(["none", "latest", "all"]),
    st.sampled_from([0.0, 3.0, 25.0]),
    st.lists(st.floats(0.01, 300), min_size=1, max_size=20),
    st.sampled_from([None, 0.0, 30.0, 120.0]),
)
def test_no_tick_comes_twice_none_is_early_and_none_too_late(
    policy: Any, jitter: float, naps: list[float], late: float | None
) -> None:
    one = line(10.0, catch_up=policy, jitter=jitter, max_late=late)
    agenda, now, seen = Agenda([one], 5.0, 5.0), 5.0, list[Tick]()
    for nap in naps:
        now += nap
        ticks = agenda.due(now).ticks
        for tick in ticks:
            assert tick.fires <= now
            assert now - tick.fires <= one.bound
        seen += ticks
        if policy == "latest" and late is None and now >= 20 + jitter:
            assert seen[-1].moment >= now - 20 - jitter
    moments = [tick.moment for tick in seen]
    assert moments == sorted(set(moments))
    if policy == "all" and late is None:
        assert moments == [10.0 * n for n in range(1, len(moments) + 1)]
        assert now < 10.0 * (len(moments) + 2) + jitter


def test_at_most_so_many_are_caught_up_the_newest() -> None:
    agenda = Agenda([line(1.0, catch_up="all", max_late=86_400.0)], 0.0, 0.0)
    came = agenda.due(50_000.0)
    assert [tick.moment for tick in (came.ticks[0], came.ticks[-1])] == [50_000.0 - MOST_CAUGHT_UP + 1, 50_000.0]
    assert came.skipped == ["line"]


def test_lines_that_change_lose_their_old_ticks() -> None:
    agenda = Agenda([line(10.0), Line("other", schedule(7.0), CALL)], 0.0, 0.0)
    agenda.change([Line("line", schedule(100.0), CALL, since=5.0)], ["other"], 5.0)
    assert agenda.wake() == 100.0
    assert agenda.due(99.0).ticks == []
    assert [tick.line.schedule for tick in agenda.due(100.0).ticks] == [schedule(100.0)]


def test_changes_without_end_do_not_fill_the_heap() -> None:
    agenda = Agenda([], 0.0, 0.0)
    for number in range(10_000):
        agenda.change([line(1e6, since=float(number % 7))], [], 1.0)
    assert len(agenda._heap) < 200


def test_a_moment_that_was_fired_leaves_nothing() -> None:
    agenda = Agenda([line(once(50.0))], 0.0, 0.0)
    assert len(agenda.due(60.0).ticks) == 1
    assert agenda.wake() is None


def test_a_tick_is_remembered_as_long_as_it_may_be_repeated() -> None:
    daily = crontab(0, 3)
    assert line(daily).remembers(10_800.0, daily.next_after(10_800.0)) == 86_400 + SLACK
    assert line(catch_up="all").remembers(10.0, 20.0) == 3600 + SLACK
    assert line(catch_up="none").remembers(10.0, 20.0) == 10 + SLACK
    assert line(daily, catch_up="none").remembers(0.0, 86_400.0) == 60 + SLACK


def test_a_tick_is_guarded_by_lease_and_number() -> None:
    tick = first_after(line(), 1_795_780_800.0)
    assert tick is not None
    fence = Fence("beat::app", 7)
    message = tick.message("app", 0, fence, 1.0)
    assert message.id == "beat::app:line@20261127T120010Z"
    assert message.guards == (fence, Dedup(message.id, 10 + SLACK))
    assert tick.message("app", 2, fence, 1.0).id == "beat::app:line@20261127T120010Z~2"


def test_ids_of_ticks_have_a_bound_and_differ() -> None:
    ids = {tick_id("n" * 100, "a" * 100, "x" * 190 + str(n), moment, 0) for n in (1, 2) for moment in (1.0, 1.000001)}
    assert len(ids) == 4
    assert all(len(one) < 200 for one in ids)


@pytest.mark.parametrize(
    "options",
    [
        {"jitter": -1.0},
        {"jitter": float("nan")},
        {"catch_up": "some"},
        {"max_late": -1.0},
        {"max_late": float("inf")},
        {"catch_up": "all", "max_late": 1e6},
    ],
)
def test_policies_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        line(**options)
