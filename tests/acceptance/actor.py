"""A producer or a worker on the bare engine, in its own process: `python -m tests.acceptance.actor produce|work …`.

Task `n` has the body `n`; what happened is in the history file under that name. A negative one is poison: it kills
whoever runs it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence

from penstock.broker import DONE, Accepted, Answer, Demand, Duplicate, Full, LeaseLost
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Dead, Delivery, Settlement
from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.errors import BrokerUnavailable
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.queue import Queue
from penstock.testing.history import History, Kind

BATCH = 256
MAX_ATTEMPTS = 3
QUEUE = "default"


def open_store(path: str) -> Engine:
    return open_engine(f"sqlite:///{path}", queues=[Queue(QUEUE)])


def message(task: str, *, named: bool = False) -> Message:
    return Message(1, "act", task.encode(), id=f"task-{task}" if named else None, queue=QUEUE)


def publish(engine: Engine, history: History, tasks: Sequence[str], *, named: bool = False) -> None:
    """Publish, telling the history what was asked and what was answered; an error leaves it unknown."""
    history.note_all(Kind.ASKED, tasks)
    batch = [message(task, named=named) for task in tasks]
    answers: Sequence[Answer] = engine.run(engine.broker.publish(batch, 30.0))
    good = [task for task, answer in zip(tasks, answers, strict=True) if isinstance(answer, Accepted | Duplicate)]
    full = [task for task, answer in zip(tasks, answers, strict=True) if isinstance(answer, Full)]
    history.note_all(Kind.ACCEPTED, good)
    history.note_all(Kind.REFUSED, full)


def produce(arguments: argparse.Namespace) -> None:
    engine = open_store(arguments.path)
    history = History(arguments.history, f"producer-{os.getpid()}")
    for low in range(arguments.first, arguments.last, arguments.batch):
        tasks = [str(number) for number in range(low, min(arguments.last, low + arguments.batch))]
        publish(engine, history, tasks, named=arguments.named)
        time.sleep(arguments.pause)
    engine.close()


class Worker:
    """Reserves, starts, settles; the shortest honest loop, without the runtime around it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.engine = open_store(arguments.path)
        self.id = secrets.token_hex(16)
        self.history = History(arguments.history, f"worker-{os.getpid()}")
        self.want = Demand((QUEUE,), arguments.batch, self.id, lease=arguments.lease, wait=arguments.wait)
        self.lease = arguments.lease
        self.until = time.monotonic() + arguments.seconds
        self.early = arguments.early
        self.nap = arguments.nap
        self.burst = arguments.burst
        self.stops_after = arguments.stop_after
        self._upkeep = 0.0
        now = time.time()
        info = WorkerInfo(self.id, "actor", "here", os.getpid(), 1, (QUEUE,), "actor", now, now)
        self.engine.run(self.engine.coordinator.join(info))

    def run(self) -> None:
        settled: list[Settlement] = []
        while time.monotonic() < self.until and not (self.burst and self._is_done(settled)):
            self._renew()
            settled = self._run_batch(self._step(settled))
        self._step(settled, Demand((QUEUE,), 0, self.id))
        self.engine.run(self.engine.coordinator.leave(self.id))
        self.engine.close()

    def _is_done(self, settled: Sequence[Settlement]) -> bool:
        return not settled and self.engine.run(self.engine.broker.depth(QUEUE)) == 0

    def _step(self, settled: Sequence[Settlement], want: Demand | None = None) -> Sequence[Delivery]:
        step = self.engine.run(self.engine.broker.step(settled, want or self.want))
        committed, late = [], []
        for settlement, answer in zip(settled, step.settled, strict=True):
            assert settlement.outcome is not None
            name = settlement.outcome.value.decode()
            (late if isinstance(answer, LeaseLost) else committed).append(name)
        self.history.note_all(Kind.COMMITTED, committed)
        self.history.note_all(Kind.LATE, late)
        return step.deliveries

    def _run_batch(self, deliveries: Sequence[Delivery]) -> list[Settlement]:
        settled = []
        for delivery in deliveries:
            message = delivery.message
            assert message is not None
            task = message.body.decode()
            if message.attempts >= MAX_ATTEMPTS:
                outcome = Outcome(State.FAILURE, message.body, time.time())
                settled.append(Settlement(delivery.receipt, Dead("it kills its workers"), outcome))
            elif not self.early:
                self.engine.broker.record_start(0, delivery.receipt)
                settled.append(self._run_one(delivery, task))
            elif self._claim(delivery, task):
                self._run_one(delivery, task)
        self.engine.broker.record_start(0, None)
        return settled

    def _claim(self, delivery: Delivery, task: str) -> bool:
        """Acknowledge before the start; `False`: it is somebody else's now."""
        step = self.engine.run(self.engine.broker.step([Settlement(delivery.receipt, ACK)], None))
        self.history.note(Kind.COMMITTED if step.settled[0] == DONE else Kind.LATE, task)
        return step.settled[0] == DONE

    def _run_one(self, delivery: Delivery, task: str) -> Settlement:
        self.history.note(Kind.STARTED, task)
        if task.startswith("-"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.nap:
            time.sleep(self.nap)
        self.stops_after -= 1
        if self.stops_after == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        return Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, task.encode(), time.time()))

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._upkeep:
            return
        self._upkeep = now + min(1.0, self.lease / 3)
        try:
            self.engine.run(self.engine.coordinator.renew([self.id], self.lease))
            self.engine.run(self.engine.coordinator.reap())
        except BrokerUnavailable:
            pass  # somebody is stopped in the lock; the next turn tries again


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    actors = parser.add_subparsers(required=True)
    producer = actors.add_parser("produce")
    producer.set_defaults(act=produce)
    producer.add_argument("--first", type=int, default=0)
    producer.add_argument("--last", type=int, required=True)
    producer.add_argument("--batch", type=int, default=500)
    producer.add_argument("--pause", type=float, default=0.0)
    producer.add_argument("--named", action="store_true")
    worker = actors.add_parser("work")
    worker.set_defaults(act=lambda arguments: Worker(arguments).run())
    worker.add_argument("--seconds", type=float, default=60.0)
    worker.add_argument("--batch", type=int, default=BATCH)
    worker.add_argument("--lease", type=float, default=30.0)
    worker.add_argument("--wait", type=float, default=0.1)
    worker.add_argument("--nap", type=float, default=0.0)
    worker.add_argument("--early", action="store_true")
    worker.add_argument("--burst", action="store_true", help="end when nothing is left")
    worker.add_argument("--stop-after", type=int, default=0)
    for actor in (producer, worker):
        actor.add_argument("path")
        actor.add_argument("history")
    arguments = parser.parse_args(argv)
    arguments.act(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
