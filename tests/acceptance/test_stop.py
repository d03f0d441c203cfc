"""SIGSTOP: a worker past its lease, a worker inside its transaction, a producer inside its own."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.errors import BrokerUnavailable
from penstock.message import Message
from penstock.testing.checkers import Ledger, no_loss, single_commit
from penstock.testing.history import read_history
from tests.acceptance.audit import read_remains
from tests.acceptance.plant import Plant
from tests.acceptance.processes import Process, Stage, state, wait_until

STOPS = 5
GONE = ("X", "Z")
STOPPED = ("T", *GONE)
Tell = Callable[[str], None]


@pytest.fixture
def engine(stage: Stage) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{stage.path}")
    yield engine
    engine.close()


def stop_in_transaction(engine: Engine, pids: Callable[[], list[int]]) -> int:
    """Stop one of these processes at a moment when it holds the write lock; which."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pid = engine.writer_pid()
        if pid is None or pid not in pids():
            continue
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: state(pid) in STOPPED, 2, "it is stopped", 0.0005)
        if engine.writer_pid() == pid or state(pid) in GONE:
            return pid
        os.kill(pid, signal.SIGCONT)  # it had just let go
    raise AssertionError("nobody was ever caught in a transaction")


def test_a_late_commit_is_refused(stage: Stage, measured: Tell) -> None:
    """A worker freezes in the middle of a batch until its lease is over, and others have done its work."""
    stage.producer("--last", 200).wait()
    frozen = stage.worker("--lease", 1, "--stop-after", 100, "--seconds", 6)
    frozen.wait_stopped()
    others = [stage.worker("--lease", 1, "--burst") for _ in range(2)]
    for other in others:
        assert other.wait() == 0
    frozen.resume()
    assert frozen.wait() == 0
    ledger, remains = Ledger(read_history(stage.history)), read_remains(stage.path)
    for finding in (no_loss(ledger, remains), single_commit(ledger)):
        assert finding.ok, str(finding)
    assert sum(ledger.late.values()) == 200, "all that it settled late was refused"
    assert remains.ended == ledger.accepted
    measured(f"200 late commits refused, 0 double; {ledger.repeated()} started again")


def test_a_stopped_producer_is_named(stage: Stage, engine: Engine) -> None:
    """Nobody can free a lock whose holder is somebody else's process: callers are told who it is, in time."""
    producer = stage.producer("--last", 2_000_000, "--batch", 1000)
    stopped = stop_in_transaction(engine, lambda: [producer.pid])
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=rf"held by process {stopped} \(stopped\)"):
        engine.run(engine.broker.publish([Message(1, "act", b"1")], 1.0))
    assert time.monotonic() - began < 2
    producer.resume()
    engine.run(engine.broker.publish([Message(1, "act", b"1")], 5.0))
    producer.kill()


class Pulse:
    """Publishes one task after the other, and knows the longest time without success."""

    def __init__(self, plant: Plant, numbers: Iterator[range]) -> None:
        self._plant = plant
        self._numbers = numbers
        self._stopped = threading.Event()
        self.longest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped.is_set():
            numbers = next(self._numbers)
            self._plant.publish(self._plant.touch, numbers)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.mark.slow
def test_a_child_stopped_in_its_transaction_holds_nobody_up(stage: Stage, measured: Tell) -> None:
    plant = Plant(stage.path, stage.history)
    worker = stage.start("plant", "--concurrency", 3, stage.path, stage.history)
    engine = plant.app.engine
    gaps, numbers = [], (range(low, low + 50) for low in itertools.count(0, 50))
    for _ in range(STOPS):
        with Pulse(plant, numbers) as pulse:
            time.sleep(0.3)
            pid = stop_in_transaction(engine, lambda: children(worker))
            wait_until(lambda pid=pid: pid not in children(worker), 5, "the supervisor kills the stopped child")
            time.sleep(0.3)
        gaps.append(pulse.longest)
        wait_until(lambda: len(children(worker)) == 3, 40, "the child is replaced")
    wait_until(lambda: engine.run(engine.broker.depth("default")) == 0, 30, "the queue is empty", 0.05)
    worker.terminate()
    assert worker.wait() == 0
    plant.app.close()
    ledger, remains = Ledger(read_history(stage.history)), read_remains(stage.path)
    assert no_loss(ledger, remains).ok
    assert max(gaps) < 2.0, gaps
    measured(f"{STOPS} stops inside a transaction; producers waited {min(gaps):.2f} to {max(gaps):.2f} s")


def children(worker: Process) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]
