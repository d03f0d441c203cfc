"""An app whose task streams, its worker, and a reader: `python -m tests.acceptance.faucet URL work|read …`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from penstock import Penstock, Task
from penstock.worker import Worker, WorkerOptions

Drop = tuple[int, int]


def faucet(url: str) -> Task[[int, int, float], None]:
    """The task `run(stop, most, pause)`: parts are (process, number). Its first run stops after `stop` of them, and
    waits to be killed."""
    app = Penstock("faucet", broker=url, durability="process" if url.startswith("sqlite") else None)

    @app.task(name="run", bind=True)
    def run(self: Task[..., None], stop: int, most: int, pause: float) -> Iterator[Drop]:
        for number in range(most):
            if number == stop and not self.request.attempts:
                time.sleep(600)
            yield os.getpid(), number
            time.sleep(pause)

    return run  # type: ignore[return-value]  # a generator's task, of which only its calls are made here


def main(url: str, act: str, *arguments: str) -> None:
    task = faucet(url)
    if act == "work":
        raise SystemExit(Worker(task.app, WorkerOptions(pool="prefork", concurrency=1, lease=5)).run())
    task_id, offset = arguments
    stream = task.app.AsyncResult(task_id).stream(int(offset), timeout=60)
    for _, number in stream:
        print(stream.offset, number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
