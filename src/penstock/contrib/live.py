"""A real worker on threads of a test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.contrib.clock import TravelClock
from penstock.errors import ConfigError
from penstock.worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from penstock.app import Penstock

STOPPING = 10.0
"""Seconds that tasks have to end, when the test has ended."""


@contextmanager
def live_worker(
    app: Penstock, clock: TravelClock, concurrency: int = 2, queues: tuple[str, ...] = ()
) -> Iterator[Worker]:
    """A worker of `app` that serves until the block ends: then what runs is finished, the rest stays. `clock` is the
    app's; when it moves, the worker looks for what is due.

    Raises `ConfigError` for an app with hard time limits, or a broker that is not in memory; what ended the worker
    early; and `RuntimeError` when a task does not end.
    """
    worker = Worker(app, WorkerOptions(pool="threads", concurrency=concurrency, queues=queues, name="live"))
    if app.engine.broker.features.durability != "memory":
        raise ConfigError(f"{app.engine.url}: a worker inside a test serves memory:// only; start `penstock worker`")
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            worker.serve()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=serve, name="penstock-live-worker", daemon=True)
    ring = app.engine.broker.interrupt
    clock.listeners.append(ring)
    thread.start()
    try:
        yield worker
    finally:
        clock.listeners.remove(ring)
        worker.stop()
        thread.join(STOPPING)
    if errors:
        raise errors[0]
    if thread.is_alive():
        raise RuntimeError(f"a task still runs {STOPPING:g} s after the end of the test; its worker is left behind")
