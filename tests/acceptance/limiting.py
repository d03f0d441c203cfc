"""What the test of limits runs: a worker of tasks that note when they ran.

python -m tests.acceptance.limiting URL NOTES
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from penstock import Penstock
from penstock.worker import Worker, WorkerOptions

RATE, AT_A_TIME = 100.0, 2


def limited_app(url: str, notes: Path) -> Penstock:
    app = Penstock("limiting", broker=url)

    def note(what: str) -> None:
        # One write of a short line, so that those of several processes do not mix.
        with notes.open("ab", buffering=0) as file:
            file.write(f"{what} {time.monotonic():.6f} {os.getpid()}\n".encode())

    @app.task(name="paced", rate_limit=RATE, ignore_result=True)
    def paced() -> None:
        note("paced")

    @app.task(name="locked", concurrency_limit=AT_A_TIME, ignore_result=True)
    def locked(seconds: float) -> None:
        note("begun")
        time.sleep(seconds)
        note("ended")

    @app.task(name="free")
    def free() -> float:
        return time.monotonic()

    return app


def main() -> None:
    url, notes = sys.argv[1:]
    app = limited_app(url, Path(notes))
    Worker(app, WorkerOptions(pool="prefork", concurrency=2, loglevel="ERROR")).run()


if __name__ == "__main__":
    main()
