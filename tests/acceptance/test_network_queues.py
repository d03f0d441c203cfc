"""Queues at their bound, and many tasks that are not due, on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from penstock.broker import Accepted, Answer, Full
from penstock.errors import QueueFull
from tests.acceptance.processes import Process, wait_until
from tests.acceptance.sites import Field

Tell = Callable[[str], None]

BOUND = 50
WAITING = 20_000
GROWTH = 30 << 20
"""Bytes by which a worker may grow while 20,000 tasks wait that are not due: they would take more."""


@pytest.mark.slow
def test_a_full_queue_refuses_and_loses_nothing(field: Field, measured: Tell) -> None:
    field.length = BOUND
    mill = field.mill()
    answers = [answer for number in range(90) for answer in mill.publish(mill.touch, [number])]
    accepted, refused = (sum(isinstance(one, kind) for one in answers) for kind in (Accepted, Full))
    assert accepted + refused == 90
    wait_until(lambda: _is_full(mill.publish(mill.touch, [90])), 5, "the bound is seen", 0.1)
    with pytest.raises(QueueFull) as raised:
        mill.touch.delay(91)
    assert raised.value.limit == BOUND
    assert raised.value.retry_after > 0
    refused_at_once = sum(isinstance(one, Full) for one in mill.publish(mill.touch, range(92, 100)))
    ledger, remains = field.finish(mill, field.worker())
    assert remains.ended == ledger.accepted
    field.check_once(ledger)
    measured(f"bound {BOUND}: of 100 sends {accepted} accepted one by one, {refused + refused_at_once} refused, 0 lost")


def _is_full(answers: Sequence[Answer]) -> bool:
    return any(isinstance(answer, Full) for answer in answers)


@pytest.mark.slow
def test_retries_and_delayed_tasks_come_due_into_a_full_queue(field: Field, measured: Tell) -> None:
    """Refusing them would deadlock; dropping them would lose them."""
    field.length = BOUND
    mill = field.mill()
    delayed = BOUND // 2
    mill.publish(mill.touch, range(delayed), options={"countdown": 2.0})
    mill.publish(mill.stubborn, range(delayed, BOUND))
    worker = field.worker()
    refused, number, until = 0, BOUND, time.monotonic() + 3.0
    while time.monotonic() < until:
        if _is_full(mill.publish(mill.stubborn, [number])):
            refused += 1
            time.sleep(0.005)
        number += 1
    ledger, remains = field.finish(mill, worker)
    assert remains.ended == ledger.accepted, "all that was accepted has ended well"
    assert len(ledger.accepted) >= BOUND
    assert refused, "the queue was never full"
    measured(f"bound {BOUND}: {len(ledger.accepted)} tasks ended, {refused} refused meanwhile")


@pytest.mark.slow
def test_tasks_that_are_not_due_do_not_move_to_a_worker(field: Field, measured: Tell) -> None:
    mill, worker = field.mill(), field.worker("--concurrency", 1)
    mill.publish(mill.touch, [0])
    wait_until(lambda: field.starts(0), 20, "it works")
    before, began = _memory(worker), time.monotonic()
    mill.publish(mill.touch, range(1, WAITING + 1), options={"countdown": 3600.0})
    took = time.monotonic() - began
    mill.publish(mill.touch, [WAITING + 1])
    gap = wait_until(lambda: field.starts(WAITING + 1), 5, "what is due runs beside them")
    time.sleep(1.0)
    grown = _memory(worker) - before
    assert sum(field.ledger().starts.values()) == 2
    assert grown < GROWTH
    info = next(one for one in mill.app.engine.run(mill.app.engine.inspect.queues()) if one.name == field.queue)
    assert not info.leased
    assert info.delayed in (WAITING, None)
    worker.terminate()
    assert worker.wait(30) == 0
    measured(
        f"{WAITING:,} published in {took:.1f} s; the next due task ran after {gap * 1000:.0f} ms; the worker grew by "
        f"{grown / 2**20:.1f} MiB"
    )


def _memory(worker: Process) -> int:
    """Bytes of the worker and its children."""
    pids = [worker.pid, *map(int, Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split())]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)
