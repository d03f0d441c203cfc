"""What the test of alarms runs: a worker whose tasks may be slow, stop their process, or hang.

python -m tests.acceptance.ringing FOLDER WEBHOOK PORT SECONDS
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

from penstock import Penstock, Queue
from penstock.metrics.place import Place
from penstock.pressure.alarms import PressureEvent
from penstock.worker import Worker, WorkerOptions
from tests.acceptance.processes import wait_until

EPOCH = 1_790_000_000
SPEED = 6
"""Alarms are a matter of seconds; for these workers they pass in sixths."""


class FastClock:
    def time(self) -> float:
        return EPOCH + (time.time() - EPOCH) * SPEED

    def monotonic(self) -> float:
        return time.monotonic() * SPEED


def ringing_app(folder: Path, webhook: str | None = None, seconds: float = 0.0) -> Penstock:
    """`seconds`: of each run of "work"."""
    app = Penstock(
        "ringing",
        broker=f"sqlite:///{folder / 'queue.db'}",
        clock=FastClock(),
        task_queues=[Queue("default", 50, warn_age=2.0)],
        pressure_webhook=webhook,
        pressure_warn_stuck=3.0,
    )

    @app.task(name="work")
    def work() -> None:
        time.sleep(seconds)

    @app.task(name="hang", expected_time=1.0)
    def hang() -> None:
        wait_until((folder / "free").exists, 60.0, "it is let go")

    @app.task(name="stop", max_attempts=1)
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    @app.on_pressure
    def note(event: PressureEvent) -> None:
        with (folder / "hooks").open("a") as file:
            file.write(f"{event.state} {event.kind} {event.subject}\n")

    return app


def main() -> None:
    folder, webhook, port, seconds = sys.argv[1:]
    logging.getLogger("penstock.worker").addHandler(logging.FileHandler(Path(folder, "log")))
    options = WorkerOptions(pool="prefork", concurrency=3, loglevel="INFO", metrics=Place(int(port)))
    Worker(ringing_app(Path(folder), webhook, float(seconds)), options).run()


if __name__ == "__main__":
    main()
