"""Outcomes of neighbours share a row, and each is found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.postgres.outcomes import find, pack_outcomes, without
from penstock.errors import DecodeError
from penstock.outcome import Outcome, State


def outcome(number: int) -> Outcome:
    return Outcome(State.SUCCESS, b"%d" % number, 1.5, 0.25, number % 7, "json")


def rows(numbers: set[int]) -> list[tuple[int, int, str, bytes, float]]:
    packed = pack_outcomes((number, f"task-{number}", outcome(number)) for number in numbers)
    return [(b, m, "worker", v, 9.0) for b, m, v in zip(*packed, strict=True)]


@given(st.sets(st.integers(0, (1 << 62) - 1) | st.integers(4000, 4200), min_size=1, max_size=150))
def test_each_is_found_and_nothing_else(numbers: set[int]) -> None:
    stored = rows(numbers)
    assert all(-(1 << 63) <= mask < 1 << 63 for _, mask, *_ in stored)
    for number in numbers:
        found = find(stored, number)
        assert found is not None
        assert (found.outcome, found.task, found.worker) == (outcome(number), f"task-{number}", "worker")
        assert number + 1 in numbers or find(stored, number + 1) is None


@given(st.sets(st.integers(0, 63), min_size=2, max_size=64), st.data())
def test_one_can_be_taken_out(numbers: set[int], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(numbers)))
    [(bucket, mask, worker, body, at)] = rows(numbers)
    left, rest = without(mask, body, gone)
    stored = [(bucket, left, worker, rest, at)]
    assert find(stored, gone) is None
    for number in numbers - {gone}:
        found = find(stored, number)
        assert found is not None
        assert found.outcome == outcome(number)


def test_the_first_row_counts() -> None:
    first, second = rows({5})[0], pack_outcomes([(5, "", Outcome(State.FAILURE, b"2", 2.0))])
    found = find([first, (second.buckets[0], second.masks[0], "", second.values[0], 9.0)], 5)
    assert found is not None
    assert found.outcome.state is State.SUCCESS


def test_a_row_without_a_body_says_revoked() -> None:
    found = find([(0, 1 << 5, "", None, 7.0)], 5)
    assert found is not None
    assert (found.outcome.state, found.outcome.done) == (State.REVOKED, 7.0)
    assert without(1 << 5, None, 5) == (0, None)


def test_damage_is_told() -> None:
    with pytest.raises(DecodeError):
        find([(0, 1 << 5, "", b"\xc1", 7.0)], 5)
