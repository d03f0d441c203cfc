"""What comes too late is counted, and told with the samples."""

from __future__ import annotations

import time

from penstock import Penstock, Queue, State
from penstock.contrib.clock import TravelClock
from penstock.contrib.live import live_worker
from penstock.pressure.reports import told
from penstock.pressure.samples import merged


def test_a_worker_tells_how_many_calls_were_too_late() -> None:
    clock = TravelClock()
    app = Penstock("late", broker="memory://", clock=clock, task_queues=[Queue("default", max_latency="9s")])
    task = app.task(name="t")(lambda: None)
    results = [task.apply_async(expires=1), task.apply_async(deadline=1)]
    clock.advance(2)
    counted: list[tuple[str, str, int]] = []
    with live_worker(app, clock, concurrency=1):
        until = time.monotonic() + 10
        while not counted and time.monotonic() < until:
            clock.advance(1.0)  # it looks once a second
            time.sleep(0.02)
            reports = app.engine.run(told(app.engine.coordinator, "")).values()
            counted = merged(report.samples for report in reports).expired
    assert counted == [("default", "t", 2)]
    assert [result.state for result in results] == [State.REVOKED] * 2
    app.close()
