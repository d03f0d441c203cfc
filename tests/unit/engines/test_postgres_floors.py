"""Where a claim begins to look, when wading through consumed tasks is slow."""

import json

import pytest

from penstock.engines.postgres.floors import LASTING, SLACK, Floors


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("penstock.engines.postgres.floors.time.monotonic", lambda: now[0])
    return now


def test_quick_looks_have_no_floor(clock: list[float]) -> None:
    one = Floors()
    one.claimed(3, 1 << 20)
    one.took(0.001, 10)
    assert one.sql() is None


def test_a_slow_look_has_one_for_a_while(clock: list[float]) -> None:
    one = Floors()
    one.claimed(3, 1 << 20)
    one.claimed(3, 1 << 19)
    one.took(0.5, 100)
    assert json.loads(one.sql() or "") == {"3": (1 << 20) - SLACK}
    clock[0] += LASTING / 2
    one.took(0.5, 100)  # slow for another reason: what is below must be found in time all the same
    clock[0] += LASTING / 2 + 0.1
    assert one.sql() is None


def test_what_came_back_is_looked_for(clock: list[float]) -> None:
    one = Floors()
    one.claimed(3, 1 << 20)
    one.took(0.5, 100)
    one.forget()
    assert one.sql() is None
