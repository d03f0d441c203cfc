"""The real worker with its supervisor: children killed, poison, SIGTERM under load, retries into a full queue, two
PID namespaces."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import QueueFull
from penstock.testing.checkers import (
    Ledger,
    Remains,
    at_most_once,
    innocents_spared,
    no_loss,
    nothing_invented,
    poison_contained,
)
from penstock.testing.history import Kind, read_history
from tests.acceptance.audit import read_remains
from tests.acceptance.plant import Plant
from tests.acceptance.processes import Process, Stage, wait_until

ROUNDS = 12
"""Workers that are killed, each with all its children."""
TASKS = 240_000
NEIGHBOURS = 5_000
ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
Tell = Callable[[str], None]


@pytest.fixture
def plant(stage: Stage) -> Iterator[Plant]:
    plant = Plant(stage.path, stage.history)
    yield plant
    plant.app.close()


def start_worker(stage: Stage, *options: object, prefix: tuple[str, ...] = ()) -> Process:
    return stage.start("plant", *options, stage.path, stage.history, prefix=prefix)


def children(worker: Process) -> list[int]:
    found = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def finish(stage: Stage, plant: Plant, worker: Process) -> tuple[Ledger, Remains]:
    """Wait until nothing is left, stop the worker warmly, and check what holds whatever happened."""
    depth = plant.app.engine.broker.depth
    wait_until(lambda: plant.app.engine.run(depth("default")) == 0, 60, "the queue is empty", 0.05)
    worker.terminate()
    assert worker.wait() == 0
    return examine(stage)


def examine(stage: Stage) -> tuple[Ledger, Remains]:
    ledger, remains = Ledger(read_history(stage.history)), read_remains(stage.path)
    for finding in (no_loss(ledger, remains), nothing_invented(ledger, remains)):
        assert finding.ok, str(finding)
    return ledger, remains


def kill_all(stage: Stage, rng: random.Random) -> int:
    """Start a worker, kill one of its children at work, and a little later the supervisor and the others; how many."""
    size = stage.history.stat().st_size
    worker = start_worker(stage)
    wait_until(lambda: stage.history.stat().st_size > size, 10, "it works", 0.001)
    time.sleep(rng.random() * 0.05)
    os.kill(rng.choice(children(worker)), signal.SIGKILL)
    time.sleep(rng.random() * 0.1)
    last = children(worker)
    worker.kill()
    for pid in last:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 2 + len(last)


@pytest.mark.slow
def test_workers_and_children_are_killed(stage: Stage, plant: Plant, measured: Tell) -> None:
    rng, killed, step = random.Random(1), 0, TASKS // ROUNDS
    for round_ in range(ROUNDS):
        plant.publish(plant.touch, range(round_ * step, (round_ + 1) * step))
        killed += kill_all(stage, rng)
    ledger, remains = finish(stage, plant, start_worker(stage))
    spared = innocents_spared(ledger, remains, ())
    assert spared.ok, str(spared)
    assert len(remains.ended) == TASKS
    measured(f"{killed} processes killed, {TASKS:,} tasks, 0 lost, {ledger.repeated():,} started again")


@pytest.mark.slow
def test_a_killed_child_is_replaced_and_its_task_redelivered(stage: Stage, plant: Plant, measured: Tell) -> None:
    worker = start_worker(stage, "--concurrency", 1)
    gaps = []
    for number in range(3):
        plant.history.note(Kind.ASKED, str(number))
        plant.nap.delay(number, 0.5)
        wait_until(lambda number=number: starts(stage, number), 10, "it starts")
        os.kill(children(worker)[0], signal.SIGKILL)
        gaps.append(wait_until(lambda number=number: starts(stage, number) == 2, 20, "it starts again"))
    finish(stage, plant, worker)
    measured(f"started again after {', '.join(f'{gap:.2f}' for gap in gaps)} s (lease 30 s)")


def starts(stage: Stage, number: int) -> int:
    return Ledger(read_history(stage.history)).starts[str(number)]


@pytest.mark.slow
def test_poison_takes_no_neighbour_with_it(stage: Stage, plant: Plant, measured: Tell) -> None:
    """Each poison kills its child three times; it is claimed in one batch with up to 255 others."""
    third = NEIGHBOURS // 3
    plant.publish(plant.touch, range(third))
    plant.publish(plant.poison, [-1])
    plant.publish(plant.touch, range(third, 2 * third))
    plant.publish(plant.poison, [-2])
    plant.publish(plant.touch, range(2 * third, NEIGHBOURS))
    began = time.monotonic()
    ledger, remains = finish(stage, plant, start_worker(stage))
    for finding in (
        innocents_spared(ledger, remains, {"-1", "-2"}),
        poison_contained(ledger, remains, {"-1", "-2"}, max_attempts=3),
    ):
        assert finding.ok, str(finding)
    assert len(remains.ended) == NEIGHBOURS
    measured(
        f"2 poisons among {NEIGHBOURS:,}: dead after 3 starts each, 0 neighbours with them, "
        f"{ledger.repeated() - 4} started again, {time.monotonic() - began:.1f} s"
    )


@pytest.mark.slow
def test_poison_alone(stage: Stage, plant: Plant) -> None:
    plant.publish(plant.poison, [-1])
    ledger, remains = finish(stage, plant, start_worker(stage, "--concurrency", 1))
    contained = poison_contained(ledger, remains, {"-1"}, max_attempts=3)
    assert contained.ok, str(contained)


@pytest.mark.slow
def test_sigterm_under_load_loses_and_repeats_nothing(stage: Stage, plant: Plant, measured: Tell) -> None:
    rng, stops, seconds = random.Random(2), 8, []
    for round_ in range(stops):
        plant.publish(plant.touch, range(round_ * 20_000, (round_ + 1) * 20_000))
        size = stage.history.stat().st_size
        worker = start_worker(stage)
        wait_until(lambda size=size: stage.history.stat().st_size > size, 10, "it works", 0.001)
        time.sleep(rng.random() * 0.15)
        began = time.monotonic()
        worker.terminate()
        assert worker.wait() == 0
        seconds.append(time.monotonic() - began)
    ledger, remains = examine(stage)
    once = at_most_once(ledger)
    assert once.ok, str(once)
    assert remains.ended == ledger.starts.keys()
    ledger, remains = finish(stage, plant, start_worker(stage))
    assert at_most_once(ledger).ok
    assert len(remains.ended) == stops * 20_000
    measured(
        f"{stops} SIGTERMs, {len(remains.ended):,} tasks, 0 lost, 0 twice, stopped in at most {max(seconds):.2f} s"
    )


@pytest.mark.slow
def test_at_most_once_under_kills(stage: Stage, plant: Plant, measured: Tell) -> None:
    rng, count = random.Random(3), ROUNDS * 2_500
    plant.publish(plant.once, range(count))
    killed = sum(kill_all(stage, rng) for _ in range(ROUNDS))
    ledger, remains = finish(stage, plant, start_worker(stage))
    once = at_most_once(ledger)
    assert once.ok, str(once)
    dead, never = len(remains.dead), count - len(ledger.starts)
    assert never <= dead <= killed, "only what somebody ran, or had noted to start, is lost"
    measured(f"{killed} kills, {count:,} tasks, 0 started twice, {dead} dead letters, {never} of them never started")


@pytest.mark.slow
def test_retries_come_due_into_a_full_queue(stage: Stage, measured: Tell) -> None:
    """Refusing them would deadlock; admitting new work beside them would never let them shrink it."""
    length = 400
    plant = Plant(stage.path, stage.history, length)
    plant.publish(plant.stubborn, range(length))
    worker = start_worker(stage)
    refused = added = 0
    limits = set()
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        number = length + added
        plant.history.note(Kind.ASKED, str(number))
        try:
            plant.stubborn.delay(number)
        except QueueFull as error:
            refused += 1
            limits.add(error.limit)
            time.sleep(min(error.retry_after, 0.01))
        else:
            plant.history.note(Kind.ACCEPTED, str(number))
            added += 1
    _, remains = finish(stage, plant, worker)
    plant.app.close()
    assert limits == {length}, "the queue was never full"
    assert len(remains.ended) == length + added
    measured(f"bound {length}: {length + added} tasks retried twice each, all ended; {refused} refused meanwhile")


@pytest.mark.slow
def test_two_pid_namespaces_share_the_file(stage: Stage, plant: Plant, measured: Tell) -> None:
    """As two containers with one volume: process ids mean nothing to the other, locks do."""
    prefix = ("unshare", *ROOT, "--pid", "--fork", "--kill-child", "--mount-proc")
    count = 40_000
    plant.publish(plant.touch, range(count))
    inside = [start_worker(stage, prefix=prefix) for _ in range(2)]
    size = stage.history.stat().st_size
    wait_until(lambda: stage.history.stat().st_size > size, 20, "they work", 0.001)
    time.sleep(0.1)
    inside[0].kill()  # and with it, all of its namespace
    plant.history.note(Kind.ASKED, str(count))
    plant.nap.delay(count, 30.0)
    wait_until(lambda: starts(stage, count), 20, "it starts")
    outside = start_worker(stage)
    time.sleep(1.0)
    inside[1].kill()
    gap = wait_until(lambda: starts(stage, count) == 2, 5, "the worker outside sees that the one inside is dead")
    for pid in children(outside):
        os.kill(pid, signal.SIGKILL)
    outside.kill()
    ledger, remains = examine(stage)
    assert len(remains.ended | remains.waiting) == count + 1
    assert innocents_spared(ledger, remains, ()).ok
    measured(f"2 namespaces killed, {count:,} tasks, 0 lost, redelivered across in {gap:.2f} s")
