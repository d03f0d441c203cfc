"""What is believed of who was refused, and how much of it is kept."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from penstock.errors import AccessRefused
from penstock.pressure.refused import (
    FRESH,
    LATELY,
    MOST,
    MOST_COUNTED,
    MOST_QUEUES,
    OTHERS,
    Counts,
    Refusal,
    Refusals,
    read,
    told,
    with_counts,
)

KIND = ("me", "mail", "t")


def test_totals_grow_and_names_go_when_they_are_old() -> None:
    shard = with_counts(with_counts(None, {KIND: 4}, 2.0, 100.0), {KIND: 6}, 2.0, 102.0)
    assert read(shard) == Refusals({"mail": 10}, [Refusal(*KIND, 10, 102.0, 3.0)])
    later = read(with_counts(shard, {("you", "mail", "t"): 1}, 2.0, 103.0 + LATELY))
    assert later.totals == {"mail": 11}
    assert [one.who for one in later.lately] == ["you"]


def test_who_says_nothing_more_is_not_refused_any_more() -> None:
    one = Refusal(*KIND, 10, 100.0, 3.0)
    assert (one.rate(100.0 + FRESH), one.rate(100.1 + FRESH)) == (3.0, 0.0)


def test_there_is_a_bound_for_all() -> None:
    data = None
    for number in range(2 * MOST):
        data = with_counts(data, {(f"me{number}", "mail", "t"): 1}, 2.0, float(number))
    kept = read(data)
    assert len(kept.lately) == MOST
    assert kept.lately[0].who == f"me{2 * MOST - 1}"
    assert kept.totals == {"mail": 2 * MOST}
    many = {("me", f"q{number}", "t"): 1 for number in range(MOST_QUEUES + 7)}
    known = read(with_counts(None, many, 2.0, 0.0))
    assert known.totals[OTHERS] == 7
    assert (known.total("q0"), known.total("another")) == (1, None), "it may be among the others"
    assert Refusals({"q0": 1}).total("another") == 0
    counts = Counts()
    for number in range(4 * MOST_COUNTED):
        counts.add(f"me{number}", f"q{number}", "t")
    taken = counts.take()
    assert len(taken) <= 2 * MOST_COUNTED + 1
    assert sum(taken.values()) == 4 * MOST_COUNTED
    assert not counts


def test_long_names_do_not_spoil_what_others_have_told() -> None:
    counts = Counts()
    counts.add("w" * 10_000, "q" * 10_000, "t" * 10_000)
    shard = with_counts(with_counts(None, {KIND: 4}, 2.0, 100.0), counts.take(), 2.0, 100.0)
    assert read(shard).totals["mail"] == 4


def test_what_could_not_be_told_is_told_later() -> None:
    counts = Counts()
    counts.add(*KIND, 3)
    taken = counts.take()
    counts.add(*KIND)
    counts.give_back(taken)
    assert counts.take() == {KIND: 4}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        Refusals({"mail": -1}),
        Refusals({f"q{number}": 1 for number in range(MOST_QUEUES + 2)}),
        Refusals({}, [Refusal(*KIND, 0, 1.0, 1.0)]),
        Refusals({}, [Refusal(*KIND, 1, math.nan, 1.0)]),
        Refusals({}, [Refusal(*KIND, 1, 1.0, math.inf)]),
        Refusals({}, [Refusal("x" * 1_000, "mail", "t", 1, 1.0, 1.0)]),
        Refusals({}, [Refusal(*KIND, 1, 1.0, 1.0)] * (MOST + 1)),
    ],
)
def test_what_cannot_be_true_is_not_believed(value: object) -> None:
    data = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    assert read(data) == Refusals()
    assert read(with_counts(data, {KIND: 1}, 2.0, 1.0)).totals == {"mail": 1}


def test_who_may_not_read_it_is_told_nothing_and_no_error() -> None:
    class Closed:
        asked = 0

        async def get(self, key: str) -> tuple[bytes, int] | None:
            self.asked += 1
            raise AccessRefused("no read right")

    state = Closed()
    assert asyncio.run(told(state, "", 0.0)) is None  # type: ignore[arg-type]  # all that is asked of it
    assert state.asked == 1
