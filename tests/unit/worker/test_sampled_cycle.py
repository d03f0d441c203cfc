"""What a slot samples is all of its time: the task, and what it does between two batches."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.worker.inline import Inline
from penstock.worker.slot import Batch, Slot

TASK, STEP, REST = 1.0, 0.5, 0.25
"""Seconds of a task, of settling and reserving, and of what else is done after a batch."""


class Desk:
    """A bench whose batches are given, by their number of tasks; nothing comes for one of none."""

    def __init__(self, clock: ManualClock, batches: list[int]) -> None:
        self.warm, self.burst, self.idle_wait = False, False, 1.0
        self._clock, self._batches = clock, batches

    def pull(self, settled: list[Settlement], limit: int, wait: float) -> list[Any]:
        self._clock.advance(STEP + wait)
        self.warm = len(self._batches) == 1
        return [object()] * self._batches.pop(0)

    def rest(self, slot: int) -> None:
        self._clock.advance(REST)

    def watch(self) -> None: ...

    def ran(self, count: int) -> None: ...

    def finish(self, batch: Batch) -> None: ...


class Run:
    """A runner of tasks that let time pass."""

    def __init__(self, clock: ManualClock) -> None:
        self._plan = SimpleNamespace(early=False, simple=True, function=lambda: clock.advance(TASK), name="t")

    def tick(self, now: float) -> None: ...

    def prepare(self, slot: Slot, delivery: object, now: float) -> None:
        slot.started, slot.plan = now, cast(Any, self._plan)
        slot.request = cast(Any, SimpleNamespace(sink=None, message=SimpleNamespace(queue="mail", ready_since=0.0)))

    def fail(self, slot: Slot, error: BaseException, now: float) -> Settlement:
        raise error

    def succeed(self, slot: Slot, value: object, now: float) -> Settlement:
        return Settlement((1, 1), ACK)


@pytest.fixture
def sampled() -> Callable[[list[int]], list[float]]:
    """Seconds that are noted of each task."""

    def run(batches: list[int]) -> list[float]:
        clock, notes = ManualClock(), list[tuple[Any, ...]]()
        sampling = cast(Any, SimpleNamespace(note=notes.append))
        parts = (Desk(clock, [*batches, 0]), Slot(0, Batch()), Run(clock), None, clock, None, sampling)
        Inline(*cast(Any, parts)).serve()
        return [note[2] for note in notes]

    return run


def test_what_is_between_two_batches_is_shared_by_the_tasks_of_the_second(
    sampled: Callable[[list[int]], list[float]],
) -> None:
    between = REST + STEP
    assert sampled([1, 1, 2]) == pytest.approx([TASK, TASK + between, *[TASK + between / 2] * 2])


def test_what_a_slot_waits_for_work_is_not_its_time(sampled: Callable[[list[int]], list[float]]) -> None:
    assert sampled([1, 0, 1]) == pytest.approx([TASK, TASK])
