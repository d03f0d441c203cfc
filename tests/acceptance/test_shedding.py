"""Processes race for the room of a queue that sheds: never more than its bound, and each task once, done or dead."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from penstock.engines.sqlite import open_engine
from penstock.queue import Queue
from tests.acceptance.audit import check_counts
from tests.acceptance.processes import Process
from tests.acceptance.shedding import QUEUE

BOUND, EACH = 20, 300


@pytest.mark.parametrize("overflow", ["drop-oldest", "shed-lowest-priority"])
def test_each_task_is_done_or_dead(tmp_path: Path, overflow: str) -> None:
    path = tmp_path / "queue.db"
    engine = open_engine(f"sqlite:///{path}", durability="process")
    engine.run(engine.inspect.declare([Queue(QUEUE, BOUND, overflow=overflow)]))  # type: ignore[arg-type]
    url = f"sqlite:///{path}"
    workers = [Process("tests.acceptance.shedding", "work", url, name) for name in "ab"]
    producers = [Process("tests.acceptance.shedding", "produce", url, name, EACH) for name in "xyz"]
    while any(producer.alive() for producer in producers):
        [info] = engine.run(engine.inspect.queues())
        assert info.depth is not None
        assert info.depth <= BOUND
    accepted = [number for producer in producers for number in producer.output().split()]
    done = [number for worker in workers for number in worker.output().split()]
    letters = engine.run(engine.inspect.dead_letters(QUEUE, 10_000))
    dead = [letter.message.body.decode() for letter in letters if letter.message]
    assert sorted(accepted) == sorted(done + dead)
    [info] = engine.run(engine.inspect.queues())
    assert (info.depth, info.shed, info.settled) == (0, len(dead), len(accepted))
    assert 0 < len(dead) < len(accepted)
    engine.close()
    check_counts(apsw.Connection(str(path)))
