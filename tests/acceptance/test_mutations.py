"""Each check fails when its promise is broken on purpose, and holds in the same scene when it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.testing.checkers import (
    Finding,
    Ledger,
    at_most_once,
    innocents_spared,
    no_loss,
    poison_contained,
    single_commit,
)
from penstock.testing.history import read_history
from tests.acceptance.actor import MAX_ATTEMPTS
from tests.acceptance.audit import read_names
from tests.acceptance.processes import Process, Stage, wait_until

TASKS = 300
Scene = Callable[[Stage, str], Finding]


def mutant(stage: Stage, mutation: str, *options: object) -> Process:
    """It ends after a while whatever the counts say, which may be wrong."""
    return stage.start("mutant", mutation, "work", "--seconds", 5, *options, stage.path, stage.history)


def freeze(stage: Stage, mutation: str) -> Finding:
    """A worker settles after its lease went to another."""
    stage.producer("--last", TASKS).wait()
    frozen = mutant(stage, mutation, "--lease", 1, "--stop-after", 50, "--burst")
    frozen.wait_stopped()
    stage.worker("--lease", 1, "--burst").wait()
    frozen.resume()
    frozen.wait()
    return single_commit(Ledger(read_history(stage.history)))


def lose_worker(stage: Stage, mutation: str) -> Finding:
    """A worker is killed in the middle of a batch, and another goes on."""
    stage.producer("--last", TASKS).wait()
    victim = mutant(stage, mutation, "--stop-after", 50)
    victim.wait_stopped()
    victim.kill()
    mutant(stage, mutation, "--burst").wait()
    return no_loss(Ledger(read_history(stage.history)), read_names(stage.path))


def publish_poison(stage: Stage, mutation: str) -> None:
    """One poison in the middle of a batch; workers come, one after the other, until one is not killed by it."""
    stage.producer("--last", 100).wait()
    stage.producer("--first", -1, "--last", 0).wait()
    stage.producer("--first", 100, "--last", 200).wait()
    for _ in range(MAX_ATTEMPTS + 2):
        if mutant(stage, mutation, "--burst").wait() == 0:
            return


def contain_poison(stage: Stage, mutation: str) -> Finding:
    publish_poison(stage, mutation)
    return poison_contained(Ledger(read_history(stage.history)), read_names(stage.path), {"-1"}, MAX_ATTEMPTS)


def spare_neighbours(stage: Stage, mutation: str) -> Finding:
    publish_poison(stage, mutation)
    return innocents_spared(Ledger(read_history(stage.history)), read_names(stage.path), {"-1"})


def start_once(stage: Stage, mutation: str) -> Finding:
    """A worker of early acknowledged work is killed."""
    stage.producer("--last", TASKS).wait()
    victim = mutant(stage, mutation, "--early", "--stop-after", 50)
    victim.wait_stopped()
    victim.kill()
    heir = stage.worker("--early", "--burst", "--wait", 0.5)
    wait_until(lambda: len(Ledger(read_history(stage.history)).starts) == TASKS, 20, "the rest is started")
    heir.kill()
    return at_most_once(Ledger(read_history(stage.history)))


CASES = (
    ("no_fence", freeze),
    ("returned_work_dropped", lose_worker),
    ("start_not_recorded", contain_poison),
    ("all_charged", spare_neighbours),
    ("start_before_ack", start_once),
)


@pytest.mark.parametrize(("mutation", "scene"), CASES, ids=[mutation for mutation, _ in CASES])
def test_a_broken_promise_is_found(stage: Stage, mutation: str, scene: Scene) -> None:
    finding = scene(stage, mutation)
    assert not finding.ok, f"nobody noticed: {finding}"


@pytest.mark.parametrize("scene", [scene for _, scene in CASES], ids=[mutation for mutation, _ in CASES])
def test_a_kept_promise_is_not_accused(stage: Stage, scene: Scene) -> None:
    finding = scene(stage, "none")
    assert finding.ok, str(finding)


@pytest.mark.parametrize("mutation", ["none", "ack_before_sync"])
def test_a_confirmation_before_the_sync_is_found(stage: Stage, mutation: str) -> None:
    lost, undone = stage.start("mutant", mutation, "power", stage.folder).output().split()
    assert (int(lost) > 0, int(undone) > 0) == (mutation != "none", mutation != "none")
