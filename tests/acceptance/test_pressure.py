"""A queue with `max_latency` keeps it under a load of three times what its workers can do."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from penstock import Penstock, QueueFull
from penstock.queue import MAX_LENGTH
from tests.acceptance.pressing import LATENCY, SECONDS, THREADS, pressed_app
from tests.acceptance.processes import Stage, wait_until

OFFERED = 3.0
"""Times what the threads could do if nothing but the tasks took time."""
FOR = 4.0
"""Seconds of load."""


def offer(app: Penstock, seconds: float) -> tuple[int, int]:
    """Call at that rate, whatever the answers; how many were accepted, and refused."""
    accepted = refused = 0
    pace, began = SECONDS / THREADS / OFFERED, time.time()
    for number in range(int(seconds / pace)):
        time.sleep(max(0.0, began + number * pace - time.time()))
        try:
            app.tasks["work"].delay(time.time())
            accepted += 1
        except QueueFull:
            refused += 1
    return accepted, refused


@pytest.fixture(params=["sqlite", "rabbitmq"])
def urls(request: pytest.FixtureRequest, stage: Stage) -> list[str]:
    """Of the broker; and of results, where they are elsewhere, and the bound with them."""
    if request.param == "sqlite":
        return [f"sqlite:///{stage.path}"]
    return [str(request.getfixturevalue(f"{server}_url")) for server in ("rabbitmq", "redis")]


def test_what_is_accepted_is_done_in_time(stage: Stage, urls: list[str], measured: Callable[[str], None]) -> None:
    url, *results = urls
    notes = stage.folder / "notes"
    notes.touch()
    app = pressed_app(url, notes, *results)

    def bound() -> int:
        return next(one.max_length for one in app.engine.run(app.engine.inspect.queues()) if one.name == "pressed")

    worker = stage.start("pressing", url, notes, *results)
    app.tasks["work"].delay_many((time.time(),) for _ in range(20))
    wait_until(lambda: bound() != MAX_LENGTH, 20.0, "the bound follows the first samples", 0.05)
    began = time.time()
    accepted, refused = offer(app, FOR)
    again = pressed_app(url, notes, *results)
    again.tasks["work"].delay_many([])
    assert bound() < MAX_LENGTH, "who starts does not set the bound back"
    wait_until(lambda: len(notes.read_text().splitlines()) == 20 + accepted, 30.0, "the rest is done", 0.05)
    took = sorted(float(line.split()[1]) for line in notes.read_text().splitlines() if float(line.split()[0]) >= began)
    p99 = took[int(len(took) * 0.99)]
    measured(
        f"offered {OFFERED:g} × {THREADS / SECONDS:g}/s: {accepted / FOR:.0f}/s accepted, {refused} refused; p50 "
        f"{took[len(took) // 2]:.2f} s, p99 {p99:.2f} s = {p99 / LATENCY:.2f} × max_latency; bound {bound()}"
    )
    assert refused > accepted / 2
    assert p99 < 2 * LATENCY
    worker.terminate()
    worker.wait()
    app.close()
    again.close()
