from typing import Any

import click

from penstock.cli.show_queues import Rates, percent, rate, rates_of, row
from penstock.pressure.readings import fullness
from penstock.queue import QueueInfo


def info(**changes: Any) -> QueueInfo:
    fields: dict[str, Any] = dict.fromkeys(QueueInfo.__struct_fields__, None)
    fields |= {"name": "q", "namespace": "", "max_length": 100, "max_bytes": 1000, "paused": False, "shed": 0}
    return QueueInfo(**(fields | changes))


def test_a_queue_is_as_full_as_the_nearer_of_its_bounds() -> None:
    assert fullness(info(depth=10, bytes=900)) == 0.9
    assert fullness(info(depth=10)) == 0.1
    assert fullness(info()) is None


def test_rates_are_the_difference_of_two_readings() -> None:
    before, after = info(enqueued=10, settled=5), info(enqueued=30, settled=5)
    new = info(name="new", enqueued=4, settled=2)
    assert rates_of([before], [after, new], 2.0) == {("", "q"): Rates(10.0, 0.0), ("", "new"): Rates(2.0, 1.0)}
    assert rates_of([info()], [info()], 2.0) == {("", "q"): Rates(None, None)}


def test_what_was_shed_was_not_worked_off() -> None:
    before, after = info(enqueued=10, settled=5, shed=5), info(enqueued=30, settled=25, shed=15)
    assert rates_of([before], [after], 2.0) == {("", "q"): Rates(10.0, 5.0)}
    assert click.unstyle(row(after, None)[8]) == "15"


def test_what_is_unknown_is_shown_as_unknown() -> None:
    cells = [click.unstyle(cell) for cell in row(info(), None)]
    assert cells[1] == "? / 100" and cells[3] == "?" and cells[4:8] == ["?"] * 4
    assert cells[-2:] == ["–", "–"]


def test_a_name_from_outside_is_cleaned_and_a_pause_is_shown() -> None:
    assert click.unstyle(row(info(name="a\x1bb", namespace="n", paused=True), None)[0]) == "n/a�b paused"


def test_small_numbers_are_not_nothing() -> None:
    assert (percent(0.0), percent(0.001), percent(0.5)) == ("0%", "<1%", "50%")
    assert (rate(0.25), rate(1234.5)) == ("0.2", "1,234")
