"""How long a queue may be."""

from __future__ import annotations

import pytest

from penstock.pressure.law import CLOSED, Rate, Threads, bound, differs, lasting, length, plan, rate
from penstock.pressure.samples import Times
from penstock.queue import Queue, QueueInfo


def times(*seconds: float) -> Times:
    found = Times()
    for one in seconds:
        found.add(one)
    return found


def found(delayed: int = 0, oldest: float | None = None) -> QueueInfo:
    return QueueInfo("mail", "", 1_000_000, 1 << 30, 10, 100, 10, 0, delayed, 0, oldest, 10, 0)


def test_the_law_is_what_was_promised_when_times_do_not_vary() -> None:
    assert length(2.0, Rate(8 / 0.04, 8)) == 400
    assert length(2.0, Rate(1 / 0.5, 1)) == 4


def test_what_varies_is_taken_off() -> None:
    assert length(2.0, Rate(200.0, 8, variation=1.0)) < 400 - 2.33 * 17
    assert length(2.0, Rate(200.0, 8, tail=0.5)) == 300


def test_a_tail_beyond_the_latency_leaves_half() -> None:
    assert length(2.0, Rate(200.0, 8, tail=60.0)) == 200


def test_no_thread_is_without_work_however_long_a_task_takes() -> None:
    assert length(2.0, Rate(4 / 60, 4)) == 4
    assert length(0.001, Rate(0.1, 0.2)) == 1


def test_rates_need_samples_and_workers() -> None:
    assert rate(Times(), 4, 0.0) is None
    assert rate(times(0.1), 0, 0.0) is None
    known = rate(times(0.1, 0.3), 4, 7.0)
    assert known is not None
    assert known.per_second == pytest.approx(20)
    assert known.variation == pytest.approx(0.5)
    assert known.at == 7.0


def test_the_last_rate_lasts_for_the_grace() -> None:
    last = Rate(200.0, 8, at=100.0)
    assert lasting(last, 400.0, 300.0) is last
    assert lasting(last, 400.1, 300.0) is None
    assert lasting(None, 0.0, 300.0) is None


def test_the_bound_is_the_declared_one_where_nothing_is_known() -> None:
    assert bound(Queue("mail", 500, max_latency=2), found(), None) == 500
    assert bound(Queue("mail", 500, max_latency=2), found(), Rate(200.0, 8)) == 380
    assert bound(Queue("mail", 300, max_latency=2), found(), Rate(200.0, 8)) == 300
    assert bound(Queue("mail", 500, max_age=2), found(), Rate(1.0, 8)) == 500


def test_what_is_delayed_takes_no_room() -> None:
    assert bound(Queue("mail", max_latency=2), found(delayed=1_000), Rate(200.0, 8)) == 1_380


def test_too_old_lets_nothing_in() -> None:
    queue = Queue("mail", 500, max_age="10s")
    assert bound(queue, found(oldest=10.1), None) == CLOSED
    assert bound(queue, found(oldest=9.9), None) == 500
    assert bound(queue, found(), None) == 500


def test_threads_are_what_other_queues_leave_and_a_fair_share_at_least() -> None:
    assert Threads(8, ("mail",), {}).of("mail") == 8
    assert Threads(8, ("mail",), {}).of("images") == 0
    assert Threads(8, ("mail", "images"), {"images": 2.0, "mail": 6.0}).of("mail") == 6
    assert Threads(8, ("mail", "images"), {"images": 8.0}).of("mail") == 4


def test_small_changes_are_not_written() -> None:
    assert not differs(400, 410)
    assert not differs(400, 400)
    assert differs(400, 430)
    assert differs(1, 2)
    assert differs(2, 1)


def test_what_is_let_in_too_much_is_late_and_too_little_is_not() -> None:
    assert not differs(400, 420)
    assert differs(400, 390)
    assert not differs(400, 393)


def test_a_plan_has_headroom() -> None:
    found = plan(2.0, 500.0, times(0.04))
    assert found is not None
    assert (found.threads, found.length) == (25, 1250)
    assert found.fewest == pytest.approx(20)
    assert found.busy == pytest.approx(0.8)
    assert plan(2.0, 500.0, Times()) is None
