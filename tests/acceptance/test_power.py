"""Power loss at every sync point: what was confirmed is there, what was settled stays settled, the file is whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.engines.sqlite import database
from tests.acceptance.outage import Load, examine
from tests.acceptance.power import Disk

ROUNDS = 70
PAGES = 25
"""A checkpoint after so many pages, so that a short run meets many."""
Tell = Callable[[str], None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", PAGES)
    disk = Disk("forgetful")
    yield disk
    disk.unregister()


@pytest.mark.slow
def test_nothing_confirmed_is_lost_at_any_sync_point(disk: Disk, tmp_path: Path, measured: Tell) -> None:
    load = Load(tmp_path, disk, "power")
    load.run(ROUNDS)
    load.close()
    assert examine(load.moments, tmp_path) == (0, 0)
    measured(f"{len(load.moments)} cuts, {len(load.published):,} tasks, 0 lost, 0 settlements undone")


@pytest.mark.slow
def test_a_disk_that_reorders_and_tears_breaks_nothing(disk: Disk, tmp_path: Path, measured: Tell) -> None:
    rng = random.Random(6)
    load = Load(tmp_path, disk, "power")
    load.images = lambda: [disk.torn(rng)]
    load.run(ROUNDS)
    load.close()
    assert examine(load.moments, tmp_path) == (0, 0)
    measured(f"{len(load.moments)} torn cuts, {len(load.published):,} tasks, 0 lost, 0 settlements undone")


@pytest.mark.slow
def test_commits_of_others_between_commit_and_sync_lose_nothing(disk: Disk, tmp_path: Path, measured: Tell) -> None:
    """The sync is outside of the lock: meanwhile others commit, checkpoint and begin the WAL anew."""
    load = Load(tmp_path, disk, "power")
    load.interleave()
    for _ in range(ROUNDS):
        load.publish()
    load.close()
    assert examine(load.moments, tmp_path) == (0, 0)
    measured(f"{len(load.moments)} cuts, {len(load.published):,} tasks, 0 lost, 0 settlements undone")


def test_durability_process_does_lose(disk: Disk, tmp_path: Path, measured: Tell) -> None:
    """As it says; and so these tests can fail."""
    load = Load(tmp_path, disk, "process")
    load.run(30)
    load.close()
    lost, undone = examine(load.moments, tmp_path)
    assert lost
    assert undone
    measured(f"{len(load.moments)} cuts: {lost} lost tasks, {undone} undid settlements")
