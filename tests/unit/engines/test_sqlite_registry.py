"""Workers' files: there with their lock or not at all, and gone with their process or engine."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from penstock.broker import Demand
from penstock.coordinator import WorkerInfo
from penstock.engines import presence
from penstock.engines.sqlite import open_engine, registry
from penstock.errors import StoreError, StoreFull
from penstock.message import Message

WORKER = "a" * 32
INFO = WorkerInfo(WORKER, "w", "here", os.getpid(), 1, ("default",), "solo", 0.0)


def test_a_workers_file_appears_with_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reaper that finds it unlocked takes the worker for dead."""
    workers = registry.Registry(str(tmp_path))
    seen = []
    monkeypatch.setattr(presence.fcntl, "flock", lambda *lock: seen.append(workers.files()))
    workers.open(WORKER, 1)
    assert seen == [[]]
    assert workers.files() == [WORKER]
    workers.close()


def test_a_closed_engines_worker_is_seen_dead(tmp_path: Path) -> None:
    """The memory map of its file has a descriptor of its own, and so kept the lock."""
    closed, other = (open_engine(f"sqlite:///{tmp_path}/q.db") for _ in range(2))
    closed.run(closed.coordinator.join(INFO))
    closed.run(closed.broker.publish([Message(1, "t", b"1")], 5.0))
    closed.run(closed.broker.step((), Demand(("default",), 1, WORKER)))
    assert other.run(other.coordinator.reap()) == 0
    closed.close()
    assert other.run(other.coordinator.reap()) == 1
    other.close()


def test_no_space_for_the_notes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped without space behind it, the first note would kill the process."""

    def full(file: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    workers = registry.Registry(str(tmp_path))
    monkeypatch.setattr(presence, "reserve", full)
    with pytest.raises(StoreFull):
        workers.open(WORKER, 1)
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_opened_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a disk that is broken, and was mounted read-only for it."""

    def read_only(path: str, flags: int) -> int:
        raise OSError(errno.EROFS, "Read-only file system", path)

    workers = registry.Registry(str(tmp_path))
    monkeypatch.setattr(presence.os, "open", read_only)
    with pytest.raises(StoreError, match=r"Read-only file system.*dmesg"):
        workers.is_dead(WORKER)
