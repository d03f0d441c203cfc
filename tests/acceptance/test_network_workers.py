"""Workers fail, on a real server: killed, frozen beyond their lease, poisoned, stopped under load."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from penstock.testing.checkers import innocents_spared, poison_contained
from tests.acceptance.processes import wait_until
from tests.acceptance.sites import Field, kill_family
from tests.servers.process import children

Tell = Callable[[str], None]

ROUNDS = 4
TASKS = 2_000
FROZEN = 60
NEIGHBOURS = 400
HELD = 5.0
"""Seconds; a server hangs up after two to three heartbeats."""


@pytest.mark.slow
def test_workers_are_killed_under_load(field: Field, measured: Tell) -> None:
    rng, mill = random.Random(1), field.mill()
    for round_ in range(ROUNDS):
        mill.publish(mill.touch, range(round_ * TASKS, (round_ + 1) * TASKS))
        worker = field.worker()
        field.wait_for_work()
        time.sleep(rng.random() * 0.1)
        os.kill(rng.choice(children(worker.pid)), signal.SIGKILL)
        time.sleep(rng.random() * 0.1)
        kill_family(worker)
    ledger, remains = field.finish(mill, field.worker())
    spared = innocents_spared(ledger, remains, ())
    assert spared.ok, str(spared)
    assert len(remains.ended) == ROUNDS * TASKS
    measured(f"{ROUNDS * 4} processes killed, {ROUNDS * TASKS:,} tasks, 0 lost, {ledger.repeated()} started again")


@pytest.mark.slow
def test_a_frozen_worker_commits_nothing_late(field: Field, measured: Tell) -> None:
    """A whole worker freezes beyond its lease, others do its work, and it wakes up with ends that come too late."""
    # On RabbitMQ a lease is a channel, which ends when the server misses the worker's heartbeats.
    options = {"heartbeat": 1} if field.site.kind == "rabbitmq" else None
    mill = field.mill()
    mill.publish(mill.nap, range(FROZEN), 0.02)
    frozen = field.worker("--concurrency", 1, "--lease", 1, options=options)
    field.wait_for_work()
    time.sleep(0.1)
    for pid in (frozen.pid, *children(frozen.pid)):
        os.kill(pid, signal.SIGSTOP)
    other = field.worker("--lease", 1, options=options)
    wait_until(lambda: all(state.terminal for state in mill.states([str(n) for n in range(FROZEN)]).values()), 30,
               "others do its work", 0.05)  # fmt: skip
    for pid in (*children(frozen.pid), frozen.pid):
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.0)
    frozen.terminate()
    assert frozen.wait(30) == 0
    ledger, remains = field.finish(mill, other)
    assert len(remains.ended) == FROZEN
    if field.site.results is None:  # else the committer looks at the lease first, and the broker is never asked
        assert sum(ledger.late.values()), "nothing came late"
    measured(f"{sum(ledger.late.values())} late ends refused, 0 double; {ledger.repeated()} started again")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "lease"), [(6.0, 1.2), pytest.param(25.0, 5.0, marks=pytest.mark.extended)], ids=["6 s", "25 s"]
)
def test_a_task_longer_than_its_lease_runs_once(field: Field, seconds: float, lease: float, measured: Tell) -> None:
    mill = field.mill()
    workers = [field.worker("--concurrency", 1, "--lease", lease) for _ in range(2)]
    mill.publish(mill.nap, [1], seconds)
    wait_until(lambda: field.starts(1), 20, "it starts")
    ledger, _ = field.finish(mill, workers[0], seconds + 20)
    workers[1].terminate()
    assert workers[1].wait(30) == 0
    field.check_once(ledger)
    measured(f"{seconds:g} s with a lease of {lease:g} s: {ledger.starts['1']} start")


@pytest.mark.slow
def test_poison_ends_in_the_dead_letters_alone(field: Field, measured: Tell) -> None:
    mill, half = field.mill(), NEIGHBOURS // 2
    mill.publish(mill.touch, range(1, half + 1))
    mill.publish(mill.poison, [-1])
    mill.publish(mill.touch, range(half + 1, NEIGHBOURS + 1))
    began = time.monotonic()
    ledger, remains = field.finish(mill, field.worker())
    for finding in (
        innocents_spared(ledger, remains, {"-1"}),
        poison_contained(ledger, remains, {"-1"}, max_attempts=3),
    ):
        assert finding.ok, str(finding)
    assert len(remains.ended) == NEIGHBOURS
    measured(
        f"dead after 3 starts, {NEIGHBOURS} neighbours ended, {ledger.repeated() - 2} of them started again, "
        f"{time.monotonic() - began:.1f} s"
    )


@pytest.mark.slow
def test_a_warm_stop_under_load_repeats_nothing(field: Field, measured: Tell) -> None:
    rng, mill, stops, seconds = random.Random(2), field.mill(), 4, []
    for round_ in range(stops):
        mill.publish(mill.touch, range(round_ * TASKS, (round_ + 1) * TASKS))
        worker = field.worker()
        field.wait_for_work()
        time.sleep(rng.random() * 0.1)
        began = time.monotonic()
        worker.terminate()
        assert worker.wait(30) == 0
        seconds.append(time.monotonic() - began)
    ledger, remains = field.finish(mill, field.worker())
    field.check_once(ledger)
    assert len(remains.ended) == stops * TASKS
    measured(f"{stops} stops, {stops * TASKS:,} tasks, 0 lost, 0 twice, stopped in at most {max(seconds):.2f} s")


@pytest.mark.slow
@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_a_gil_held_longer_than_the_heartbeat(field: Field, measured: Tell) -> None:
    """No thread of the worker can answer the server meanwhile, which takes it for dead and delivers again."""
    mill = field.mill()
    mill.publish(mill.hold, [1], HELD)
    worker = field.worker("--concurrency", 2, options={"heartbeat": 1})
    ledger, remains = field.finish(mill, worker)
    assert remains.ended == {"1"}
    measured(f"GIL held for {HELD:g} s with a heartbeat of 1 s: {ledger.starts['1']} starts, ended once")
