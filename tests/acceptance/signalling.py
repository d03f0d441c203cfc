"""What the test of metrics and alarms runs: a worker that serves metrics, and notes its alarms.

python -m tests.acceptance.signalling URL NOTES PORT
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from penstock import Penstock, Queue
from penstock.metrics.place import Place
from penstock.pressure.alarms import PressureEvent
from penstock.worker import Worker, WorkerOptions


def signalling_app(url: str, notes: Path | None = None) -> Penstock:
    app = Penstock("signalling", broker=url, task_queues=[Queue("default", 50)], pressure_warn_stuck=4.0)

    @app.task(name="sleep", default_retry_delay=0.01)
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    @app.task(name="fail", max_retries=2, default_retry_delay=0.01, autoretry_for=(LookupError,))
    def fail() -> None:
        raise LookupError("nothing there")

    @app.task(name="odd")
    def odd() -> object:
        return object()

    @app.task(name="die", max_attempts=1)
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="hog")
    def hog() -> None:
        """For longer than anybody lives, with the interpreter's lock in hand."""
        re.match("(a+)+$", "a" * 60 + "b")

    @app.on_pressure
    def note(event: PressureEvent) -> None:
        if notes is not None:
            with notes.open("a") as file:
                file.write(f"{event.state} {event.kind} {event.queue}\n")

    return app


def main() -> None:
    url, notes, port = sys.argv[1:]
    app = signalling_app(url, Path(notes))
    options = WorkerOptions(pool="prefork", concurrency=2, loglevel="CRITICAL", metrics=Place(int(port)))
    Worker(app, options).run()


if __name__ == "__main__":
    main()
