"""An app whose tasks tell the history that they start, and a worker for it: `python -m tests.acceptance.plant …`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from penstock import Penstock, Task
from penstock.queue import Queue
from penstock.testing.history import History, Kind

LENGTH = 300_000


class Plant:
    """The app and its tasks; each is called with a number, by which the history knows it."""

    def __init__(
        self, path: Path, history: Path, length: int = LENGTH, broker: str | None = None, results: str | None = None
    ) -> None:
        """`broker` and `results` are URLs; without, both are the file at `path`."""
        self.history = History(history, f"plant-{os.getpid()}")
        self.app = app = Penstock(
            "plant",
            broker=broker or f"sqlite:///{path}",
            result_backend=results,
            task_queues=[Queue("default", max_length=length)],
        )
        task = app.task
        self.touch: Task[[int], int] = task(name="touch")(self._touch)
        self.nap: Task[[int, float], int] = task(name="nap")(self._nap)
        self.atouch: Task[[int], int] = task(name="atouch")(self._atouch)
        self.once: Task[[int], int] = task(name="once", acks_late=False)(self._once)
        self.poison: Task[[int], int] = task(name="poison", max_attempts=3)(self._poison)
        self.stubborn: Task[[int], int] = task(
            name="stubborn", autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.3
        )(self._stubborn)

    def publish(self, task: Task[[int], int], numbers: Sequence[int]) -> None:
        """Call `task` with each number; the history is told."""
        names = [str(number) for number in numbers]
        self.history.note_all(Kind.ASKED, names)
        task.delay_many([(number,) for number in numbers])
        self.history.note_all(Kind.ACCEPTED, names)

    def _start(self, number: int) -> None:
        self.history.note(Kind.STARTED, str(number), str(os.getpid()))

    def _touch(self, number: int) -> int:
        self._start(number)
        return number

    def _nap(self, number: int, seconds: float) -> int:
        self._start(number)
        time.sleep(seconds)
        return number

    def _once(self, number: int) -> int:
        self._start(number)
        return number

    async def _atouch(self, number: int) -> int:
        self._start(number)
        await asyncio.sleep(0.001)
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


def main(argv: Sequence[str]) -> int:
    from penstock.worker import Worker, WorkerOptions

    parser = argparse.ArgumentParser()
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--broker")
    parser.add_argument("--results")
    parser.add_argument("path", type=Path)
    parser.add_argument("history", type=Path)
    given = parser.parse_args(argv)
    options = WorkerOptions(concurrency=given.concurrency, pool=given.pool, lease=given.lease, loglevel="CRITICAL")
    plant = Plant(given.path, given.history, broker=given.broker, results=given.results)
    return Worker(plant.app, options).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
