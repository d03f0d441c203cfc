"""What processes tell each other."""

from __future__ import annotations

import msgspec
import pytest

from penstock.pressure.reports import EXPIRES, MOST, Report, Watch, read, with_report
from penstock.pressure.samples import Samples, Times


def report(at: float, slots: int = 4) -> Report:
    return Report(at, slots, ("mail",), Samples([("mail", "t", Times(1.0, 0.5))], {"mail": 1.0}))


def test_a_report_takes_the_place_of_the_last_one() -> None:
    data = with_report(with_report(None, "a", report(100.0)), "b", report(101.0))
    assert read(with_report(data, "a", report(102.0, slots=8))) == {
        "a": report(102.0, slots=8),
        "b": report(101.0),
    }


def test_old_ones_go_and_there_are_only_so_many() -> None:
    data = with_report(None, "old", report(100.0))
    assert list(read(with_report(data, "a", report(101.0 + EXPIRES)))) == ["a"]
    data = b""
    for number in range(MOST + 20):
        data = with_report(data, f"p{number}", report(100.0 + number / 10))
    assert len(read(data)) == MOST
    assert "p0" not in read(data)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"\xff",
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode({"a": report(1.0, slots=-1)}),
        msgspec.msgpack.encode({"a": Report(1.0, 1, (), Samples([("q", "t", Times(-1.0))]))}),
    ],
)
def test_what_is_damaged_is_nothing(data: bytes | None) -> None:
    assert read(data) == {}


def test_one_damaged_report_does_not_hide_the_others() -> None:
    data = msgspec.msgpack.encode({"bad": "x", "good": report(1.0)})
    assert read(data) == {"good": report(1.0)}


def test_who_says_nothing_new_is_gone_whatever_its_clock_shows() -> None:
    watch = Watch(5.0)
    assert len(watch.live({"a": report(1_000.0), "b": report(1_030.0)}, 10.0, 1_000.0)) == 1
    assert len(watch.live({"a": report(1_001.0), "b": report(1_031.0)}, 11.0, 1_001.0)) == 2
    assert watch.live({"a": report(1_006.0), "b": report(1_031.0)}, 16.5, 1_006.0) == [report(1_006.0)]
    assert len(watch.live({"a": report(1_006.0), "b": report(1_032.0)}, 17.0, 1_006.0)) == 2


def test_what_was_left_long_ago_is_not_alive() -> None:
    assert Watch(5.0).live({"a": report(1_000.0)}, 10.0, 1_006.0) == []
