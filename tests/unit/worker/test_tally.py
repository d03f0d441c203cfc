"""Samples on their way from a slot to the supervisor."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from penstock.metrics.counts import MOST, OTHERS, Counted, Counts, summed
from penstock.pressure.reports import Run, Standing
from penstock.pressure.samples import Samples, Times
from penstock.worker.slot import Batch, Slot
from penstock.worker.tally import SIZE, Sampling, Tally

IDLE = Standing("w pid 1", 1, 0, 0.0)


def named(task: str) -> Any:
    return SimpleNamespace(name=task)


def sampling_of(tally: Tally, standing: Standing = IDLE, counts: Counts | None = None) -> Sampling:
    return Sampling(tally, counts or Counts(), lambda now: standing)


def test_a_parent_reads_what_its_child_noted() -> None:
    tally = Tally()
    pid = os.fork()
    if not pid:
        sampling = sampling_of(tally)
        sampling.tick(100.0)
        sampling.note(("mail", "t", 0.5, 4, 0.0, 0.0))
        sampling.tick(101.0)
        os._exit(0)
    os.waitpid(pid, 0)
    found = tally.read(101.0)
    assert found is not None
    times = found.of_queue("mail")
    assert (times.count, times.mean) == (4, 0.5)


def test_it_looks_once_a_second() -> None:
    tally = Tally()
    sampling = sampling_of(tally)
    sampling.tick(100.0)
    sampling.note(("mail", "t", 0.5, 1, 0.0, 0.0))
    sampling.tick(100.9)
    assert tally.read(100.9) is None
    sampling.tick(101.0)
    assert tally.read(101.0) is not None


def test_who_sleeps_is_not_busy() -> None:
    tally = Tally()
    tally.write(100.0, Samples([("mail", "t", Times(1.0, 0.5))], {"mail": 2.0}))
    awake, asleep = tally.read(100.5), tally.read(130.0)
    assert awake is not None
    assert asleep is not None
    assert awake.busy["mail"] == 2.0
    assert asleep.busy["mail"] < 0.1
    assert asleep.entries == awake.entries


def test_what_is_half_written_is_not_read() -> None:
    tally = Tally()
    tally.write(100.0, Samples([("mail", "t", Times(1.0, 0.5))]))
    tally._samples._memory[20] ^= 1
    assert tally.read(100.0) is None


def test_what_is_too_large_leaves_the_least_out() -> None:
    tally = Tally()
    entries = [("q" * 200, f"{number:0>900}", Times(1.0, float(number))) for number in range(100)]
    tally.write(100.0, Samples(entries))
    found = tally.read(100.0)
    assert found is not None
    assert len(found.entries) == 50
    assert found.entries[0][2].seconds == 99.0
    assert SIZE > 50 * 1_100


def test_what_runs_goes_on_while_its_process_cannot_write() -> None:
    tally = Tally()
    sampling = sampling_of(tally, Standing("w pid 1", 2, 1, 3.0, [Run("mail", "t", 5.0, 9.0)]))
    sampling.tick(100.0)
    sampling.tick(101.0)
    found = tally.pulse(111.0)
    assert found is not None
    assert found.standing is not None
    assert (found.busy, found.standing.still, found.standing.runs[0].seconds) == (1, 13.0, 15.0)


def test_who_is_awake_and_tells_nothing_stands_still_in_what_nobody_knows() -> None:
    tally = Tally()
    sampling = sampling_of(tally)
    sampling.wakes(99.0)
    for second in (100.0, 101.0):
        sampling.tick(second)

    def standing(now: float) -> Standing | None:
        found = tally.pulse(now)
        assert found is not None
        assert found.busy == (found.standing is not None)
        return found.standing

    assert standing(103.0) is None, "it may be late"
    assert standing(111.0) == Standing("", 1, 1, 10.0)
    sampling.sleeps()
    assert standing(111.0) is None
    sampling.wakes(120.0)
    assert standing(121.0) is None
    assert standing(130.0) == Standing("", 1, 1, 10.0), "since it woke, not since it last told"
    sampling.close(131.0)
    assert standing(500.0) is None


def test_between_two_looks_nobody_is_late() -> None:
    tally = Tally()
    sampling = sampling_of(tally, Standing("w pid 1", 1, 1, 0.01, [Run("mail", "t", 0.01)]))
    sampling.tick(100.0)
    sampling.tick(101.0)
    found = tally.pulse(102.2)
    assert found is not None
    assert found.standing is not None
    assert (found.standing.still, found.standing.runs[0].seconds) == (0.01, 0.01), "it may have ended since"


def test_what_was_counted_at_the_end_is_there_and_who_sleeps_stands_nowhere() -> None:
    slots = [Slot(number, Batch()) for number in range(2)]
    tally, counts = Tally(), Counts(slots)
    sampling = sampling_of(tally, counts=counts)
    sampling.tick(100.0)
    for slot, number in zip(slots, (3, 2), strict=True):
        slot.task, slot.succeeded = named("t"), number
    counts.turn(slots[1], named("u"))
    counts.ended("t", "failed")
    sampling.note(("mail", "t", 0.02, 6, 0.0, 0.0))
    sampling.close(100.1)
    found = tally.pulse(200.0)
    assert found is not None
    assert found.standing is None
    counted = found.counts["t"]
    assert (counted.ends[:2], sum(counted.buckets), counted.seconds) == ([5, 1], 6, 0.12)


def test_names_of_tasks_have_a_bound_and_the_longest_fit() -> None:
    slot = Slot(0, Batch())
    tally, counts = Tally(), Counts([slot])
    for number in range(MOST + 7):
        counts.turn(slot, named(f"{number:é>127}"))
        slot.succeeded = 1 << 40
    sampling = sampling_of(tally, counts=counts)
    sampling.close(1.0)
    found = tally.pulse(1.0)
    assert found is not None
    assert len(found.counts) == MOST + 1
    assert found.counts[OTHERS].ends[0] == 7 << 40
    assert sum(one.ends[0] for one in summed([found.counts, found.counts]).values()) == (MOST + 7) << 41


def test_sums_of_many_processes_are_bounded_too() -> None:
    many = [{f"{process}.{number}": Counted([1] + [0] * 8)} for process in range(20) for number in range(20)]
    found = summed(many)
    assert len(found) == MOST + 1
    assert sum(one.ends[0] for one in found.values()) == 400
