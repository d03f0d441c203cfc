"""The fast plan for a whole lease says what the general one says."""

import msgspec
import pytest

from penstock.delivery import ACK, RELEASE, Settlement
from penstock.effects import Effect, ReleaseKey
from penstock.engines.sqlite import planning
from penstock.engines.sqlite.catalog import Lane
from penstock.engines.sqlite.leases import Held
from penstock.outcome import Outcome, State

LANE = Lane(1, 1, "default", "", 5, "")
ROWS = range(100, 110)


def lease(rows: range | list[int] = ROWS) -> Held:
    return Held(7, LANE, {row: ("task", row) for row in rows}, "worker")


def done(row: int, value: bytes = b"1") -> Settlement:
    return Settlement((7, row), ACK, Outcome(State.SUCCESS, value, 1.5, 0.25, 2))


@pytest.mark.parametrize("effects", [(), (ReleaseKey("k"),)])
def test_both_ways_say_the_same(effects: tuple[Effect, ...]) -> None:
    batch, held = [done(row) for row in ROWS], {7: lease()}
    batch[3].effects = effects
    fast = planning._plan_whole_lease(batch, held)
    assert fast is not None
    general = planning._plan_each(batch, held)
    for name in general.__struct_fields__:
        assert getattr(fast, name) == getattr(general, name), name
    assert [entry[1:5] for entry in msgspec.json.decode(fast.results[0][3])] == [[1.5, 0.25, 2, "task"]] * 10


@pytest.mark.parametrize(
    "batch",
    [
        [done(row) for row in ROWS[1:]],
        [done(row) for row in reversed(ROWS)],
        [*(done(row) for row in ROWS[1:]), Settlement((7, 100), RELEASE)],
        [*(done(row) for row in ROWS[1:]), Settlement((7, 100), ACK)],
        [*(done(row) for row in ROWS[1:]), Settlement((8, 100), ACK, done(100).outcome)],
        [done(100, b'"' + b"x" * 100_000 + b'"'), *(done(row) for row in ROWS[1:])],
    ],
)
def test_what_is_not_plain_takes_the_general_way(batch: list[Settlement]) -> None:
    assert planning._plan_whole_lease(batch, {7: lease()}) is None


def test_rows_with_gaps_take_the_general_way() -> None:
    rows = [100, 102, 103]
    assert planning._plan_whole_lease([done(row) for row in rows], {7: lease(rows)}) is None
