"""SIGKILL at random moments: of workers, of a producer, of everybody at once."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from penstock.testing.checkers import (
    Ledger,
    Remains,
    all_started,
    at_most_once,
    innocents_spared,
    no_loss,
    nothing_invented,
    single_commit,
)
from penstock.testing.history import read_history
from tests.acceptance.audit import read_remains
from tests.acceptance.processes import Process, Stage, wait_until

TASKS = 200_000
KILLS = 50
PRODUCER_KILLS = 12
CUTS = 6
EARLY_TASKS = 20_000
EARLY_KILLS = 20
BUSY = ("--lease", 5, "--nap", 0.00002)
"""Tasks that take a moment, so that a kill meets a worker at work."""
PACE = 0.01
"""Seconds between two publishes of 500 tasks."""
WORKERS = 2
Tell = Callable[[str], None]


def check_all(stage: Stage) -> tuple[Ledger, Remains]:
    """Every promise that a kill must not break."""
    ledger, remains = Ledger(read_history(stage.history)), read_remains(stage.path)
    for finding in (
        no_loss(ledger, remains),
        nothing_invented(ledger, remains),
        single_commit(ledger),
        all_started(ledger, remains),
        innocents_spared(ledger, remains, ()),
    ):
        assert finding.ok, str(finding)
    return ledger, remains


def drain(stage: Stage) -> Remains:
    """Let two fresh workers finish what is left; then nothing waits."""
    workers = [stage.worker("--burst") for _ in range(WORKERS)]
    for worker in workers:
        assert worker.wait() == 0
    remains = read_remains(stage.path)
    assert not remains.waiting, f"{len(remains.waiting)} tasks still wait"
    return remains


def kill_one(stage: Stage, workers: list[Process], rng: random.Random) -> None:
    """Kill a worker at a random moment of its work, and put another in its place."""
    size = stage.history.stat().st_size
    wait_until(lambda: stage.history.stat().st_size > size, 10, "anything happens", 0.001)
    time.sleep(rng.random() * 0.1)
    victim = rng.randrange(len(workers))
    workers[victim].kill()
    workers[victim] = stage.worker(*BUSY)


@pytest.mark.slow
def test_workers_are_killed(stage: Stage, measured: Tell) -> None:
    rng, began = random.Random(1), time.monotonic()
    # Published while they work, so that the kills meet every mixture of publishing, claiming and settling.
    producer = stage.producer("--last", TASKS, "--pause", PACE)
    workers = [stage.worker(*BUSY) for _ in range(WORKERS)]
    for _ in range(KILLS):
        kill_one(stage, workers, rng)
    assert producer.wait() == 0
    for worker in workers:
        worker.kill()
    drain(stage)
    ledger, remains = check_all(stage)
    assert len(remains.ended) == TASKS
    measured(
        f"{KILLS + WORKERS} kills, {TASKS:,} tasks, 0 lost, {ledger.repeated():,} started again, "
        f"{sum(ledger.late.values())} late commits refused, {time.monotonic() - began:.0f} s"
    )


@pytest.mark.slow
def test_a_producer_is_killed_and_repeats_what_it_does_not_know(stage: Stage, measured: Tell) -> None:
    rng = random.Random(2)
    worker = stage.worker()
    for round_ in range(PRODUCER_KILLS):
        first = round_ * 20_000
        options = ("--first", first, "--last", first + 20_000, "--batch", 200, "--named")
        size = stage.history.stat().st_size
        producer = stage.producer(*options)
        wait_until(lambda size=size: stage.history.stat().st_size > size, 10, "it publishes", 0.001)
        time.sleep(rng.random() * 0.2)
        producer.kill()
        unknown = sorted(map(int, Ledger(read_history(stage.history)).unknown))
        if unknown:  # the same ids again, from another process: accepted, or recognised
            stage.producer("--first", unknown[0], "--last", unknown[-1] + 1, "--named").wait()
    worker.kill()
    drain(stage)
    ledger, remains = check_all(stage)
    assert not ledger.unknown
    assert remains.ended == ledger.accepted
    assert max(ledger.starts.values()) <= 2, "a repeat was taken for a new task"
    measured(f"{PRODUCER_KILLS} kills mid-publish, {len(ledger.accepted):,} accepted, 0 lost, 0 twice")


@pytest.mark.slow
def test_everybody_is_killed_at_once(stage: Stage, measured: Tell) -> None:
    rng = random.Random(3)
    for round_ in range(CUTS):
        first = round_ * 100_000
        crowd = [stage.producer("--first", first, "--last", first + 100_000)]
        crowd += [stage.worker(*BUSY) for _ in range(WORKERS)]
        size = stage.history.stat().st_size
        wait_until(lambda size=size: stage.history.stat().st_size > size + 50_000, 20, "they work", 0.001)
        time.sleep(rng.random() * 0.3)
        for process in crowd:
            process.send(signal.SIGKILL)
        for process in crowd:
            process.wait()
    drain(stage)
    ledger, remains = check_all(stage)
    measured(
        f"{CUTS} times {1 + WORKERS} processes, {len(ledger.accepted):,} accepted, 0 lost, "
        f"{ledger.repeated():,} started again, "
        f"{len(ledger.unknown & remains.ended):,} of {len(ledger.unknown):,} unanswered were there"
    )


def test_a_killed_workers_tasks_are_redelivered_at_once(stage: Stage, measured: Tell) -> None:
    """Not after its lease, which is a minute here, but as soon as another worker looks."""
    gaps = []
    for number in range(5):
        victim = stage.worker("--lease", 60, "--nap", 30)
        stage.producer("--first", number, "--last", number + 1).wait()
        wait_until(lambda number=number: starts(stage)[str(number)], 10, "it starts")
        heir = stage.worker("--lease", 60)
        time.sleep(0.5)  # it is up, and waits
        victim.kill()
        gaps.append(wait_until(lambda number=number: starts(stage)[str(number)] == 2, 5, "it is redelivered"))
        heir.kill()
    assert max(gaps) < 2.0
    measured(f"{len(gaps)} kills, redelivered after {min(gaps):.2f} to {max(gaps):.2f} s (lease 60 s)")


def starts(stage: Stage) -> Counter[str]:
    return Ledger(read_history(stage.history)).starts


def test_work_that_is_acknowledged_before_it_starts_starts_once(stage: Stage, measured: Tell) -> None:
    rng = random.Random(4)
    stage.producer("--last", EARLY_TASKS).wait()
    workers = [stage.worker("--early", "--batch", 32) for _ in range(WORKERS)]
    for _ in range(EARLY_KILLS):
        size = stage.history.stat().st_size
        wait_until(lambda size=size: stage.history.stat().st_size > size, 10, "anything happens", 0.001)
        time.sleep(rng.random() * 0.1)
        victim = rng.randrange(len(workers))
        workers[victim].kill()
        workers[victim] = stage.worker("--early", "--batch", 32)
    wait_until(lambda: not read_remains(stage.path).waiting, 30, "all is taken", 0.3)
    for worker in workers:
        worker.kill()
    ledger = Ledger(read_history(stage.history))
    for finding in (at_most_once(ledger), single_commit(ledger)):
        assert finding.ok, str(finding)
    never = EARLY_TASKS - len(ledger.starts)
    assert never <= EARLY_KILLS + WORKERS, "only what was between acknowledgement and start may be gone"
    measured(f"{EARLY_KILLS} kills, {EARLY_TASKS:,} tasks, 0 started twice, {never} acknowledged and never started")
