"""What the test of back pressure runs: a worker of tasks that note how long their call took.

python -m tests.acceptance.pressing URL NOTES [URL OF RESULTS]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from penstock import Penstock, Queue
from penstock.worker import Worker, WorkerOptions

LATENCY, SECONDS, THREADS = 1.0, 0.02, 2
"""What the queue promises, what a task takes, and how many run at once."""


def pressed_app(url: str, notes: Path, results: str | None = None) -> Penstock:
    app = Penstock("pressing", broker=url, result_backend=results, task_queues=[Queue("pressed", max_latency=LATENCY)])

    @app.task(name="work", queue="pressed", ignore_result=True)
    def work(called: float) -> None:
        time.sleep(SECONDS)
        now = time.time()
        # One write of a short line, so that those of several processes do not mix.
        with notes.open("ab", buffering=0) as file:
            file.write(f"{called:.6f} {now - called:.6f}\n".encode())

    return app


def main() -> None:
    url, notes, *results = sys.argv[1:]
    app = pressed_app(url, Path(notes), *results)
    Worker(app, WorkerOptions(pool="prefork", concurrency=THREADS, loglevel="ERROR")).run()


if __name__ == "__main__":
    main()
