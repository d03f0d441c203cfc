"""The batch between the loop and the watchdog."""

from __future__ import annotations

import threading

from penstock.delivery import ACK, Delivery, Release, Settlement
from penstock.worker.slot import Batch


def delivery(number: int) -> Delivery:
    return Delivery((number,), number, None)


def test_what_has_not_started_is_handed_back_once() -> None:
    batch = Batch()
    batch.waiting.extend(delivery(n) for n in range(3))
    assert batch.waiting.popleft().receipt == (0,)
    released = batch.hand_back()
    assert [(item.receipt, type(item.verdict)) for item in released] == [((2,), Release), ((1,), Release)]
    assert batch.hand_back() == []


def test_what_is_finished_is_taken_once_while_more_is_appended() -> None:
    batch, taken, count = Batch(), [], 20_000
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            taken.extend(batch.take())

    takers = [threading.Thread(target=take) for _ in range(2)]
    for thread in takers:
        thread.start()
    for number in range(count):
        batch.finished.append(Settlement((number,), ACK))
    done.set()
    for thread in takers:
        thread.join()
    taken.extend(batch.take())
    assert sorted(item.receipt[0] for item in taken) == list(range(count))


def test_every_delivery_goes_to_the_loop_or_back_never_to_both() -> None:
    batch, count = Batch(), 20_000
    batch.waiting.extend(delivery(n) for n in range(count))
    back: list[Settlement] = []
    watchdog = threading.Thread(target=lambda: back.extend(batch.hand_back()))
    watchdog.start()
    ran = []
    while True:
        try:
            ran.append(batch.waiting.popleft().receipt)
        except IndexError:
            break
    watchdog.join()
    assert sorted([*ran, *(item.receipt for item in back)]) == [(n,) for n in range(count)]
