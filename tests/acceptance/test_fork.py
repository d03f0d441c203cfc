"""Processes that fork after they used the engine: Gunicorn's and Celery's children, daemons, multiprocessing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.message import Message
from tests.acceptance.processes import Stage

MANY = 300


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(f"sqlite:///{tmp_path}/queue.db")


def publish(engine: Engine, count: int) -> None:
    engine.run(engine.broker.publish([Message(1, "t", b"1") for _ in range(count)], 30.0))


def depth(engine: Engine) -> int | None:
    return engine.run(engine.broker.depth("default"))


def in_child(work: Callable[[], object]) -> int:
    """Fork, run `work` in the child; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_parent_and_child_both_publish(engine: Engine) -> None:
    publish(engine, 10)
    child = in_child(lambda: [publish(engine, 10) for _ in range(MANY)])
    for _ in range(MANY):
        publish(engine, 10)
    assert exit_code(child) == 0
    assert depth(engine) == 10 + 2 * 10 * MANY
    engine.close()


def test_a_child_outlives_its_parents_engine(stage: Stage) -> None:
    """SQLite keeps its locks for each file and process: a child that took over its parent's record of them held none,
    and the next program to close the file deleted the WAL under it, with what the child had published."""
    engine = open_engine(f"sqlite:///{stage.path}")
    publish(engine, 10)
    ready, go = os.pipe(), os.pipe()

    def work() -> None:
        publish(engine, 10)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        for _ in range(MANY):
            publish(engine, 10)

    child = in_child(work)
    os.read(ready[0], 1)
    engine.close()
    stage.producer("--last", 1000).wait()
    stage.start("foreign", stage.path).wait()  # a shell or a backup: the last to close deletes the WAL, if it may
    os.write(go[1], b"x")
    assert exit_code(child) == 0
    engine = open_engine(f"sqlite:///{stage.path}")
    assert depth(engine) == 20 + 1000 + 10 * MANY
    engine.close()


def test_a_fork_waits_for_the_transactions_of_other_threads(engine: Engine) -> None:
    """Forked in the middle of one, the child would inherit locks that nobody ever gives back."""
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            publish(engine, 100)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        codes = [exit_code(in_child(lambda: publish(engine, 1))) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 20
    engine.close()


def test_a_grandchild_keeps_its_own_files(engine: Engine, tmp_path: Path) -> None:
    """A daemon forks twice. What the first child opened meanwhile got the numbers of the files that it had closed."""
    publish(engine, 1)

    def child() -> None:
        files = [os.open(tmp_path / f"mine-{number}", os.O_CREAT | os.O_RDWR) for number in range(40)]

        def grandchild() -> None:
            for number, file in enumerate(files):
                assert os.path.samestat(os.fstat(file), os.stat(tmp_path / f"mine-{number}"))
            publish(engine, 1)

        assert exit_code(in_child(grandchild)) == 0

    assert exit_code(in_child(child)) == 0
    assert depth(engine) == 2
    engine.close()


def test_forking_leaks_no_files(engine: Engine) -> None:
    publish(engine, 1)

    def child() -> None:
        publish(engine, 1)
        before = len(os.listdir("/proc/self/fd"))
        assert exit_code(in_child(lambda: check(before))) == 0

    def check(before: int) -> None:
        publish(engine, 1)
        assert len(os.listdir("/proc/self/fd")) <= before

    assert exit_code(in_child(child)) == 0
    engine.close()


def test_a_dead_parents_locks_do_not_live_on_in_its_child(stage: Stage) -> None:
    """A worker that forked a helper and was killed is seen to be dead, though the helper lives."""
    helper = stage.start("forking_worker", stage.path, stage.history)
    pid = int(helper.line())
    helper.kill()
    began = time.monotonic()
    engine = open_engine(f"sqlite:///{stage.path}")
    assert engine.run(engine.coordinator.reap()) == 1
    assert time.monotonic() - began < 5
    engine.close()
    os.kill(pid, 9)
