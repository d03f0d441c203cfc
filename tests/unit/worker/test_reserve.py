"""How much a slot asks for."""

from __future__ import annotations

from penstock.worker.reserve import LARGEST, Credit


def test_it_begins_with_one_and_doubles_while_tasks_are_short() -> None:
    credit, wants = Credit(), []
    for _ in range(10):
        wants.append(credit.want)
        credit.ran(credit.want, credit.want * 1e-6)
    assert wants == [1, 2, 4, 8, 16, 32, 64, 128, 256, LARGEST]


def test_it_falls_at_once_when_a_batch_is_slow() -> None:
    credit = Credit()
    for _ in range(10):
        credit.ran(credit.want, credit.want * 1e-6)
    credit.ran(2, 2.0)
    assert credit.want == 1


def test_it_settles_at_five_milliseconds_of_work() -> None:
    credit = Credit()
    for _ in range(30):
        credit.ran(credit.want, credit.want * 0.0005)
    assert credit.want == 10


def test_an_empty_batch_changes_nothing() -> None:
    credit = Credit()
    credit.ran(0, 5.0)
    assert credit.want == 1
