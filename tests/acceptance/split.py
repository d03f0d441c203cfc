"""A worker whose tasks are on one server and whose results are on another, and which can be told to die between any two
steps of a settlement: `python -m tests.acceptance.split [--die-after STEP] BROKER RESULTS HISTORY`.

Task `n` has the body `n`; one of the queue FIRST is followed by the task `-n` in the queue THEN. Queues and ids begin
with `--run`, because servers are shared by tests.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from penstock import Penstock
from penstock.broker import DONE, Broker, Demand
from penstock.clock import SystemClock
from penstock.commit import OrderedCommitter
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement
from penstock.effects import Publish
from penstock.engine import Engine
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.testing.history import History, Kind

FIRST, THEN = "first", "then"
STEPS = ("extend", "store", "follow_up", "step")
"""What a settlement does, in its order; the last one acknowledges."""


def open_app(broker: str, results: str, run: str) -> Penstock:
    return Penstock("split", broker=broker, result_backend=results, task_queues=[run + FIRST, run + THEN])


def task_id(run: str, task: str) -> str:
    return f"{run}{task}-then" if task.startswith("-") else f"{run}-{task}"


def message(run: str, task: str) -> Message:
    queue = THEN if task.startswith("-") else FIRST
    return Message(1, "split", task.encode(), id=task_id(run, task), queue=run + queue)


class Dying:
    """Whatever it wraps, up to the end of the `count`-th call of `step`."""

    def __init__(self, inner: Any, step: str | None, count: int) -> None:
        self._inner = inner
        self._step = step
        self._left = count

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name != self._step:
            return method

        async def last(*arguments: Any) -> Any:
            answer = await method(*arguments)
            if arguments[0]:  # something was settled
                self._left -= 1
                if not self._left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return last


class DyingBroker(Dying):
    @property
    def features(self) -> Any:
        # Follow-ups as a step of their own, even where they could go with the settlement.
        features = self._inner.features
        return replace(features, effects=features.effects - {"Publish"})


class DyingResults(Dying):
    """An engine whose backend is wrapped."""

    def __init__(self, inner: Engine, step: str | None, count: int) -> None:
        super().__init__(inner, None, count)
        self.backend = Dying(inner.backend, step, count)


class Worker:
    def __init__(self, given: argparse.Namespace) -> None:
        app = open_app(given.broker, given.results, given.run)
        self.name = given.run
        self.engine = app.engine
        self.history = History(given.history, f"{given.queue}-{os.getpid()}")
        self.id = secrets.token_hex(16)
        self.want = Demand((given.run + given.queue,), given.batch, self.id, lease=given.lease, wait=0.2)
        broker = DyingBroker(app.engine.broker, given.die_after, given.count)
        results = DyingResults(app.results, given.die_after, given.count)
        self.committer = OrderedCommitter(cast(Broker, broker), cast(Engine, results), SystemClock())
        now = time.time()
        info = WorkerInfo(self.id, "split", "here", os.getpid(), 1, (given.queue,), "split", now, now)
        self.engine.run(self.engine.coordinator.join(info))
        self.ending = False
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_: object) -> None:
        self.ending = True

    def run(self) -> None:
        settled: list[Settlement] = []
        while settled or not self.ending:
            self.engine.run(self.engine.coordinator.reap())
            step = self.engine.run(self.committer.step(settled, self.want))
            done = [item for item, answer in zip(settled, step.settled, strict=True) if answer == DONE]
            self.history.note_all(Kind.COMMITTED, [item.outcome.value.decode() for item in done if item.outcome])
            settled = [self.run_one(delivery) for delivery in step.deliveries]
        self.engine.run(self.engine.coordinator.leave(self.id))

    def run_one(self, delivery: Delivery) -> Settlement:
        assert delivery.message is not None
        self.engine.broker.record_start(0, delivery.receipt)
        task = delivery.message.body.decode()
        self.history.note(Kind.STARTED, task)
        outcome = Outcome(State.SUCCESS, delivery.message.body, time.time())
        effects = () if task.startswith("-") else (Publish(message(self.name, f"-{task}")),)
        return Settlement(delivery.receipt, ACK, outcome, effects)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-after", choices=STEPS)
    parser.add_argument("--count", type=int, default=2, help="at which call of that step")
    parser.add_argument("--queue", default=FIRST)
    parser.add_argument("--run", default="")
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("broker")
    parser.add_argument("results")
    parser.add_argument("history")
    Worker(parser.parse_args(argv)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
