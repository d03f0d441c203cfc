"""An app on a network server, its tasks, and a worker for it: `python -m tests.acceptance.mill BROKER HISTORY …`.

Task `n` of queue `q` has the id `q.n`, chosen before it is published, so that a publish whose outcome nobody knows is
repeated, and what became of it can be asked.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock import Penstock, State, Task
from penstock.broker import DONE, Accepted, Answer, Demand, Duplicate, Full, Key, Step
from penstock.delivery import ACK, Receipt, Settlement
from penstock.dispatch import Dispatch
from penstock.outcome import Outcome
from penstock.queue import Queue
from penstock.testing.checkers import Remains
from penstock.testing.history import History, Kind

LENGTH = 300_000
ASKED_AT_ONCE = 500
NUMBER = re.compile(rb"-?\d+")


class Mill:
    """The app and its tasks; each is called with a number, by which the history knows it."""

    def __init__(
        self, broker: str, history: Path, *, results: str | None = None, queue: str = "mill", length: int = LENGTH
    ) -> None:
        self.history = History(history, f"mill-{os.getpid()}")
        self.queue = queue
        self.app = app = Penstock(
            "mill",
            broker=broker,
            result_backend=results,
            task_default_queue=queue,
            task_queues=[Queue(queue, max_length=length)],
        )
        task = app.task
        self.touch: Task[[int], int] = task(name="touch")(self._touch)
        self.nap: Task[[int, float], int] = task(name="nap")(self._nap)
        # Each time that it costs its worker the connection is charged; here it is to end, and not as poison.
        self.hold: Task[[int, float], int] = task(name="hold", max_attempts=20)(self._hold)
        self.poison: Task[[int], int] = task(name="poison", max_attempts=3)(self._poison)
        self.once: Task[[int, float], int] = task(name="once", acks_late=False)(self._nap)
        self.stubborn: Task[[int], int] = task(
            name="stubborn", autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.3
        )(self._stubborn)

    # -- the calls

    def id_of(self, number: int | str) -> str:
        return f"{self.queue}.{number}"

    def publish(
        self, task: Task[..., int], numbers: Iterable[int], *more: object, options: Mapping[str, Any] | None = None
    ) -> Sequence[Answer]:
        """Call `task` with each number; the history is told what was asked, accepted and refused."""
        numbers = list(numbers)
        prepare = self.app.client.prepare
        messages = [prepare(task, (n, *more), {}, {"task_id": self.id_of(n), **(options or {})}) for n in numbers]
        self.history.note_all(Kind.ASKED, map(str, numbers))
        answers: list[Answer] = []
        most = self.app.client.most
        for low in range(0, len(messages), most):
            answers += self.app.client.engine.run(self.app.client.publish(messages[low : low + most]))
        told = list(zip(numbers, answers, strict=True))
        self.history.note_all(Kind.ACCEPTED, [str(n) for n, one in told if isinstance(one, Accepted | Duplicate)])
        self.history.note_all(Kind.REFUSED, [str(n) for n, one in told if isinstance(one, Full)])
        return answers

    def states(self, names: Sequence[str]) -> dict[str, State]:
        """How the tasks of these numbers stand in the results."""
        found = {}
        for low in range(0, len(names), ASKED_AT_ONCE):
            asked = names[low : low + ASKED_AT_ONCE]
            reports = self.app.results.run(self.app.backend.fetch([self.id_of(name) for name in asked]))
            found.update({name: report.state for name, report in zip(asked, reports, strict=True)})
        return found

    def remains(self, names: Collection[str]) -> Remains:
        """What the servers show of these tasks: ended well, dead, or neither."""
        states = self.states(sorted(names))
        letters = self.app.engine.run(self.app.engine.inspect.dead_letters(self.queue, 1000))
        dead = {_number(letter.message.body) for letter in letters if letter.message is not None}
        return Remains(frozenset(name for name, state in states.items() if state is State.SUCCESS), frozenset(dead))

    # -- the tasks

    def _start(self, number: int) -> None:
        self.history.note(Kind.STARTED, str(number), str(os.getpid()))

    def _touch(self, number: int) -> int:
        self._start(number)
        return number

    def _nap(self, number: int, seconds: float) -> int:
        self._start(number)
        time.sleep(seconds)
        return number

    def _hold(self, number: int, seconds: float) -> int:
        self._start(number)
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # unlike CDLL, it keeps the interpreter lock
        return number

    def _poison(self, number: int) -> int:
        self._start(number)
        os.kill(os.getpid(), signal.SIGKILL)
        return number

    def _stubborn(self, number: int) -> int:
        before = self.stubborn.request.retries
        self._start(number)
        if before < 2:
            raise ValueError("not yet")
        return number


def witness(history: Path, apart: bool) -> None:
    """In this process and its children, tell the history which ends the broker accepted, and which it refused. With
    results `apart`, on a Redis, a task is committed when the result is stored, and acknowledging it commits nothing."""
    if apart:
        _witness_results(history)
    bare, accepted = Dispatch.step, Kind.ACKNOWLEDGED if apart else Kind.COMMITTED
    names: dict[Receipt, str] = {}

    async def step(self: Dispatch, settle: Sequence[Settlement], want: Demand | None) -> Step:
        done = await bare(self, settle, want)
        log = History(history, f"witness-{os.getpid()}")
        for item, answer in zip(settle, done.settled, strict=True):
            if item.verdict == ACK and item.receipt in names:
                log.note(accepted if answer == DONE else Kind.LATE, names.pop(item.receipt))
        log.close()
        for delivery in done.deliveries:
            if delivery.message is not None:
                names[delivery.receipt] = _number(delivery.message.body)
        return done

    Dispatch.step = step  # type: ignore[method-assign]


def _witness_results(history: Path) -> None:
    from penstock.engines.redis.outcomes import RedisBackend

    bare = RedisBackend.store

    async def store(self: RedisBackend, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        stored = await bare(self, outcomes)
        log = History(history, f"results-{os.getpid()}")
        for (id, _), first in zip(outcomes, stored, strict=True):
            log.note(Kind.COMMITTED if first else Kind.LATE, str(id).rpartition(".")[2])
        log.close()
        return stored

    RedisBackend.store = store  # type: ignore[method-assign]


def _number(body: bytes) -> str:
    found = NUMBER.search(body)
    return found[0].decode() if found else "without a number"


def main(argv: Sequence[str]) -> int:
    from penstock.worker import Worker, WorkerOptions

    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--results")
    parser.add_argument("--queue", default="mill")
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--log", type=Path)
    parser.add_argument("broker")
    parser.add_argument("history", type=Path)
    given = parser.parse_args(argv)
    if given.log is not None:
        logging.basicConfig(filename=given.log, level=logging.WARNING, format="%(asctime)s %(process)d %(message)s")
    witness(given.history, apart=given.results is not None)
    mill = Mill(given.broker, given.history, results=given.results, queue=given.queue, length=given.length)
    level = "CRITICAL" if given.log is None else "WARNING"
    options = WorkerOptions(concurrency=given.concurrency, pool=given.pool, lease=given.lease, loglevel=level)
    return Worker(mill.app, options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
