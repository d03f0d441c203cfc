"""Sampled times: what they come to, and that nothing strange gets in."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from penstock.pressure.samples import (
    BUCKETS,
    FIRST,
    HALF_LIFE,
    MOST,
    Note,
    Samples,
    Times,
    Window,
    bucket,
    merged,
    packed,
    unpacked,
    upper,
)


def window(*fresh: Note) -> Window:
    made = Window()
    made.pass_on(fresh, 1.0)
    return made


def test_buckets_hold_what_they_say() -> None:
    random = Random(1)
    for seconds in [FIRST, 0.0, *(10 ** random.uniform(-6, 1.8) for _ in range(1_000))]:
        number = bucket(seconds)
        assert seconds <= upper(number) * (1 + 1e-9)
        assert number == 0 or seconds >= upper(number - 1) * (1 - 1e-9)
    assert bucket(1e9) == BUCKETS - 1


def test_means_and_quantiles() -> None:
    times = Times()
    assert times.mean is None
    assert times.quantile(0.5) is None
    for hundredth in range(1, 101):
        times.add(hundredth / 100)
    assert times.mean == pytest.approx(0.505)
    median = times.quantile(0.5)
    assert median is not None
    assert median == pytest.approx(0.5, rel=0.1)
    assert times.quantile(1.0) == 1.0
    assert times.variation == pytest.approx(0.5716, rel=1e-3)


def test_a_weight_stands_for_as_many() -> None:
    many, one = Times(), Times()
    for _ in range(8):
        many.add(0.1)
    one.add(0.1, 8.0)
    assert (many.count, many.buckets) == (one.count, one.buckets)
    assert many.mean == pytest.approx(one.mean)


def test_what_is_new_counts_more_and_what_is_idle_does_not_fade() -> None:
    made = window(*[("q", "t", 0.1, 1.0, 0.0, 0.0)] * 100)
    made.pass_on([], 3_600.0)
    assert made.samples.of_queue("q").count == 100
    made.pass_on([("q", "t", 0.3, 1.0, 0.0, 0.0)] * 50, HALF_LIFE)
    assert made.samples.of_queue("q").mean == pytest.approx(0.2)


def test_of_a_long_task_enough_is_kept_to_tell_what_is_usual() -> None:
    made = Window()
    for number in range(200):
        made.pass_on([("q", "long", 5.0, 1.0, 0.0, 0.0)] if number % 5 == 0 else [], 1.0)
    times = made.samples.of_tasks("q")["long"]
    assert times.count < 5.0
    assert times.steady_count > 20.0
    assert times.steady_mean == pytest.approx(5.0)
    assert times.quantile(0.5) == pytest.approx(5.0, rel=0.2)


def test_what_is_short_and_many_fades_in_the_histogram_as_elsewhere() -> None:
    made = window(*[("q", "t", 0.1, 1.0, 0.0, 0.0)] * 1_000)
    made.pass_on([("q", "t", 0.2, 1.0, 0.0, 0.0)] * 1_000, HALF_LIFE)
    times = made.samples.of_tasks("q")["t"]
    assert (times.steady_count, times.steady_mean) == (times.count, pytest.approx(times.mean)) == (1_500, 0.5 / 3)


def test_in_its_queue_a_task_counts_for_as_much_as_it_runs_now() -> None:
    made = window(*[("q", "long", 5.0, 1.0, 0.0, 0.0)] * 40)
    for _ in range(30):
        made.pass_on([("q", "t", 0.1, 1.0, 0.0, 0.0)] * 100, 1.0)
    assert made.samples.of_tasks("q")["long"].steady_count == 40.0
    p99 = made.samples.of_queue("q").quantile(0.99)
    assert p99 is not None
    assert p99 < 0.2, "none has run for half a minute"


def test_busy_threads_follow_the_time_spent() -> None:
    made = Window()
    for _ in range(60):
        made.pass_on([("q", "t", 0.5, 1.0, 0.0, 0.0)] * 4, 1.0)
    assert made.samples.busy["q"] == pytest.approx(2.0, rel=0.01)
    made.pass_on([], 1_000.0)
    assert made.samples.busy == {}


def test_merging_adds_and_keeps_what_was_known() -> None:
    one, other = (
        window(("q", "a", 0.1, 1.0, 0.0, 0.0)).samples,
        window(("q", "a", 0.3, 1.0, 0.0, 0.0), ("q", "b", 1.0, 2.0, 0.0, 0.0)).samples,
    )
    before = window(("q", "old", 5.0, 1.0, 0.0, 0.0), ("q", "a", 9.0, 1.0, 0.0, 0.0)).samples
    both = merged([one, other], before)
    assert both.of_tasks(None)["a"].mean == pytest.approx(0.2)
    assert both.of_tasks(None)["old"].mean == pytest.approx(5.0)
    assert both.of_queue("other").mean is None
    assert one.of_tasks(None)["a"].mean == pytest.approx(0.1), "merging changes nothing of what is merged"


def test_names_are_bounded() -> None:
    made = window(*((f"q{number % 300}", f"t{number}", 0.1, 1.0, 0.0, 0.0) for number in range(10_000)))
    assert len(made.samples.entries) <= 2 * MOST + 1
    assert sum(times.count for _, times in made.samples) == pytest.approx(10_000)
    assert unpacked(packed(merged([made.samples] * 5))) is not None


def test_packed_form_is_small_and_comes_back() -> None:
    made = window(*(("q", f"tasks.task_{number % 20}", 0.01 * number, 1.0, 0.0, 0.0) for number in range(200)))
    data = packed(made.samples)
    assert len(data) < 4_000
    assert unpacked(data) == made.samples


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"{}",
        packed(Samples([("q", "t", Times(float("nan"), 1.0))])),
        packed(Samples([("q", "t", Times(1.0, -1.0))])),
        packed(Samples([("q", "t", Times(1.0, 1.0, 1.0, {BUCKETS: 1.0}))])),
        packed(Samples([("q", "t", Times())] * 1_000)),
        packed(Samples([], {"q": float("inf")})),
        msgspec.msgpack.encode([[["q", "t"]], {}]),
    ],
)
def test_what_cannot_have_been_measured_is_not_believed(data: bytes) -> None:
    assert unpacked(data) is None


def test_the_own_time_of_a_task_is_what_is_left_without_settling_and_reserving() -> None:
    made = window(*[("q", "t", 0.003, 1.0, 0.002, 0.0)] * 10, ("q", "t", 0.001, 1.0, 5.0, 0.0)).samples
    again = unpacked(packed(merged([made, made])))
    assert again is not None
    times = again.of_tasks(None)["t"]
    deviation = (10 * 0.001**2 / 11 - (0.01 / 11) ** 2) ** 0.5
    assert times.own == pytest.approx((0.01 / 11, deviation))
    times.fade(0.5)
    assert times.own == pytest.approx((0.01 / 11, deviation))
    assert Times().own is None
    older = Times(100.0, 1.0, 0.01, {3: 100.0}, 0.01)
    older.merge(times)
    assert older.own == pytest.approx((0.01 / 11, deviation)), "of those who tell it"


def test_what_was_at_the_head_is_the_latest_that_is_known() -> None:
    one = window(("q", "t", 3.0, 1.0, 1.0, 100.0), ("q", "t", 1.0, 1.0, 0.0, 90.0), ("r", "t", 1.0, 1.0, 0.0, 0.0))
    assert one.samples.heads == {"q": 102.0}, "since when the last could run, and how long it ran; r is not known"
    other = window(("q", "t", 1.0, 1.0, 0.0, 110.0), ("s", "t", 1.0, 1.0, 0.0, 5.0)).samples
    assert merged([one.samples, other]).heads == {"q": 111.0, "s": 6.0}
    assert merged([one.samples], other).heads == {"q": 111.0, "s": 6.0}
    assert unpacked(packed(other)) == other
    assert unpacked(packed(Samples(heads={"q": float("nan")}))) is None
