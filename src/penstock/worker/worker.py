"""The worker: what `penstock worker` runs."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.pool import Traits, load
from penstock.pressure.keeper import Keeper, Local
from penstock.worker.banner import banner
from penstock.worker.beating import beating, check_beat
from penstock.worker.crew import Crew
from penstock.worker.log import show_log
from penstock.worker.marks import Mark
from penstock.worker.measuring import Ledger, metrics_of
from penstock.worker.plan import Plan
from penstock.worker.settings import WorkerOptions
from penstock.worker.supervise import Supervisor
from penstock.worker.tally import Tally
from penstock.worker.upkeep import Upkeep

if TYPE_CHECKING:
    from penstock.app import Penstock

log = logging.getLogger("penstock.worker")


class Worker:
    """Runs the tasks of `app` until it is stopped: TERM or INT finish what runs, QUIT or a second INT give it up."""

    def __init__(self, app: Penstock, options: WorkerOptions | None = None) -> None:
        """Imports the modules that define the app's tasks. Raises `ConfigError` for options that cannot be kept."""
        self._app = app
        app.import_tasks()
        self._options = options or WorkerOptions()
        self._settings = self._options.settle(app)
        self._pool, self._traits = load(self._settings.pool)
        check_limits(app, self._traits)
        self._runs: Crew | Supervisor | None = None
        self._stopped = False

    def run(self) -> int:
        """Blocks until stopped. Returns the exit code: 0 after a warm stop, or a finished burst."""
        show_log(self._options.loglevel)
        if self._settings.beat:
            check_beat(self._app)
        print(banner(self._app, self._settings, self._traits), flush=True)
        return self.serve()

    def serve(self) -> int:
        """`run` that shows nothing, for a program that is not only a worker."""
        if not self._traits.supervised or self._in_memory():
            return self._run_here()
        supervisor = self._runs = Supervisor(self._app, self._settings, self._pool, self._traits)
        return 0 if self._stopped else supervisor.run()

    def stop(self) -> None:
        """Warm stop, from another thread; also of one that is just about to run."""
        self._stopped = True
        if self._runs is not None:
            self._runs.stop()

    def _in_memory(self) -> bool:
        """A store in this process's memory: children would not see it. Raises `ConfigError` for pools that need
        them."""
        if self._app.engine.broker.features.durability != "memory":
            return False
        if self._traits.processes:
            raise ConfigError(
                f"{self._app.engine.url} lives in this process only, and the {self._traits.name} pool starts others: "
                "use -P solo, threads or asyncio, or a broker URL such as sqlite:///queue.db"
            )
        return True

    def _run_here(self) -> int:
        worker = secrets.token_hex(16)
        app = self._app
        tally, slots = Tally(), 1 if self._traits.processes else self._settings.concurrency

        def local() -> Local:
            now = app.clock.monotonic()
            samples, pulse = tally.read(now), tally.pulse(now)
            busy, standing = (pulse.busy, pulse.standing) if pulse else (0, None)
            return Local(slots, [samples] if samples is not None else [], busy, [standing] if standing else [])

        results = app.results if app.keeps_results else None
        pressure = Keeper(app, self._settings.queues, local, self._settings.name)
        upkeep = Upkeep(app.engine, results, self._settings.lease, lambda: [worker], pressure)
        ledger = Ledger(app.clock.monotonic, slots)
        ledger.open(worker, tally)
        place = self._settings.metrics
        metrics = metrics_of(app, place, ledger) if place is not None else None
        crew = self._runs = Crew(self._app, self._settings, worker, self._traits, Mark(), tally, upkeep=upkeep.tick)
        if self._stopped:
            crew.stop()
        if threading.current_thread() is threading.main_thread():
            catch_signals(crew)
        if metrics is not None:
            metrics.start()
            log.info("metrics: %s", metrics.server.url)
        with beating(app) if self._settings.beat else nullcontext():
            crew.run(self._pool)
        upkeep.close()
        if metrics is not None:
            metrics.close()
        log.info("stopped")
        return 0


def catch_signals(crew: Crew) -> None:
    """TERM and INT stop warmly; a second INT, or QUIT, cold."""

    def warm(number: int, _frame: FrameType | None) -> None:
        if crew.stopped() and number == signal.SIGINT:
            crew.cold()
            return
        if number == signal.SIGINT:
            # Not `print`: the signal may have come in the middle of one.
            os.write(2, b"stopping when what runs has ended; Ctrl-C again gives it up and hands it back\n")
        crew.stop()

    def cold(_number: int, _frame: FrameType | None) -> None:
        crew.cold()

    signal.signal(signal.SIGTERM, warm)
    signal.signal(signal.SIGINT, warm)
    signal.signal(signal.SIGQUIT, cold)


def check_limits(app: Penstock, traits: Traits) -> None:
    """Raise `ConfigError` for a registered task whose time limits this pool cannot keep. Makes each task's codec,
    too."""
    for task in app.tasks.values():
        unkept = Plan.of(task, app).unkept(traits)
        if unkept is not None:
            raise ConfigError(f"task {task.name!r} has {unkept} cannot keep: use -P prefork")
