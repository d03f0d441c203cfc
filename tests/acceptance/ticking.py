"""What the tests of beat run: an app with a schedule of one second; its beat, and its worker.

    python -m tests.acceptance.ticking beat URL LEASE CATCH_UP RUNS
    python -m tests.acceptance.ticking worker URL LEASE CATCH_UP RUNS [-B LOG]

Each run of the task is a line in the file RUNS. Results are ignored, so that a task that has run is forgotten: only the
guards of a tick can tell then that it comes again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

from penstock import Penstock
from penstock.beat.beat import Beat, catch_signals
from penstock.beat.line import CatchUp
from penstock.worker import Worker, WorkerOptions
from penstock.worker.log import name_log, show_log

EVERY = 1.0


def ticking_app(url: str, lease: float, catch_up: CatchUp, runs: Path) -> Penstock:
    app = Penstock("ticking", broker=url, beat_lease=lease)

    @app.task(name="tick", bind=True, ignore_result=True)
    def tick(self: Any) -> None:
        with runs.open("a") as file:
            file.write(f"{self.request.id}\n")

    app.add_periodic_task(EVERY, tick.s(), name="second", catch_up=catch_up, max_late=60)
    return app


def main() -> None:
    role, url, lease, catch_up, runs, *rest = sys.argv[1:]
    app = ticking_app(url, float(lease), cast(CatchUp, catch_up), Path(runs))
    if role == "worker":
        if rest:
            os.dup2(os.open(rest[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        sys.exit(Worker(app, WorkerOptions(concurrency=1, beat=bool(rest))).run())
    show_log("INFO")
    name_log("beat")
    beat = Beat(app)
    catch_signals(beat)
    print("ready", flush=True)
    sys.exit(beat.run())


if __name__ == "__main__":
    main()
