"""Samples on their way from a slot to the supervisor."""

from __future__ import annotations

import os

from penstock.pressure.samples import Samples, Times
from penstock.worker.tally import SIZE, Sampling, Tally


def test_a_parent_reads_what_its_child_noted() -> None:
    tally = Tally()
    pid = os.fork()
    if not pid:
        sampling = Sampling(tally)
        sampling.tick(100.0)
        sampling.note(("mail", "t", 0.5, 4, 0.0))
        sampling.tick(101.0)
        os._exit(0)
    os.waitpid(pid, 0)
    found = tally.read(101.0)
    assert found is not None
    times = found.of_queue("mail")
    assert (times.count, times.mean) == (4, 0.5)


def test_it_looks_once_a_second() -> None:
    tally = Tally()
    sampling = Sampling(tally)
    sampling.tick(100.0)
    sampling.note(("mail", "t", 0.5, 1, 0.0))
    sampling.tick(100.9)
    assert tally.read(100.9) is None
    sampling.tick(101.0)
    assert tally.read(101.0) is not None


def test_what_was_too_late_is_told_though_nothing_ran() -> None:
    tally = Tally()
    sampling = Sampling(tally)
    sampling.tick(100.0)
    sampling.expired("mail", "t")
    sampling.tick(101.0)
    found = tally.read(101.0)
    assert found is not None
    assert found.expired == [("mail", "t", 1)]


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
    tally._memory[20] ^= 1
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
