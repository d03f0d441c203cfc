"""A real worker is scraped while a child dies, and its queue fills and is drained: numbers and alarms are right."""

from __future__ import annotations

import http.client
import signal
import time
from pathlib import Path

import pytest

from penstock.metrics.place import Place
from penstock.metrics.serving import MetricsServer
from penstock.metrics.text import Family
from penstock.worker.watch import CALM, TICK
from tests.acceptance.processes import Process, Stage, wait_until
from tests.acceptance.signalling import signalling_app
from tests.exposition import Exposed
from tests.servers.process import free_port


def scrape(port: int) -> Exposed:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    connection.close()
    return Exposed(body)


async def no_families() -> list[Family]:
    return []


def ready(port: int) -> bool:
    try:
        scrape(port)
    except OSError:
        return False
    return True


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    found = tmp_path / "notes"
    found.touch()
    return found


@pytest.fixture
def worker(stage: Stage, notes: Path, port: int) -> Process:
    started = stage.start("signalling", f"sqlite:///{stage.path}", notes, port)
    wait_until(lambda: ready(port), 30.0, "the worker answers", 0.05)
    return started


def test_what_a_worker_does_is_counted_and_nothing_goes_back(stage: Stage, worker: Process, port: int) -> None:
    app = signalling_app(f"sqlite:///{stage.path}")
    app.tasks["sleep"].delay_many([(0.02,)] * 30)
    app.tasks["fail"].delay()
    app.tasks["odd"].delay()
    app.tasks["sleep"].apply_async((0,), expires=1e-6)

    def ends(task: str, end: str) -> float | None:
        return scrape(port).get("penstock_worker_tasks_total", task=task, end=end)

    wait_until(lambda: ends("sleep", "succeeded") == 30, 20.0, "all that succeeded is counted", 0.1)
    wait_until(lambda: ends("fail", "failed") == 1, 20.0, "what failed is counted", 0.1)
    wait_until(lambda: ends("odd", "failed") == 1, 20.0, "and what returned, but nothing that can be stored", 0.1)
    assert (ends("fail", "retried"), ends("sleep", "expired"), ends("odd", "succeeded")) == (2, 1, 0)
    app.tasks["die"].delay()
    wait_until(lambda: ends("die", "failed") == 1, 20.0, "who killed its worker has failed", 0.1)
    found = scrape(port)
    assert found.get("penstock_worker_tasks_total", task="sleep", end="succeeded") == 30, "of the dead child, too"
    assert found.get("penstock_worker_slots") == 2
    assert found.get("penstock_worker_task_run_seconds_count", task="sleep") == 30
    assert 0.6 < (found.get("penstock_worker_task_run_seconds_sum", task="sleep") or 0) < 6.0
    queue = {"namespace": "", "queue": "default"}
    assert found.get("penstock_queue_depth_tasks", **queue) == 0
    assert found.get("penstock_queue_limit_tasks", **queue) == 50
    assert found.get("penstock_queue_enqueued_total", **queue) == 34
    assert found.get("penstock_queue_dead_tasks", **queue) == 3
    assert found.get("penstock_broker_up") == 1
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        scrape(port)
    app.close()


def test_a_queue_that_fills_rings_once_and_is_over_once(stage: Stage, worker: Process, port: int, notes: Path) -> None:
    app = signalling_app(f"sqlite:///{stage.path}")
    app.tasks["sleep"].delay_many([(0.25,)] * 45)

    def full() -> float | None:
        return scrape(port).get("penstock_alarms_active", namespace="", queue="default", kind="full")

    wait_until(lambda: full() == 1, 20.0, "the alarm is active", 0.1)
    wait_until(lambda: scrape(port).get("penstock_worker_slots_busy") == 2, 5.0, "both slots are busy", 0.1)

    def wait() -> float:
        return scrape(port).get("penstock_queue_predicted_wait_seconds", namespace="", queue="default") or 0.0

    wait_until(wait, 5.0, "the first tasks are sampled", 0.1)
    assert wait() < 20.0, "45 of a quarter of a second, by two"
    wait_until(lambda: full() == 0, 40.0, "it is over", 0.1)
    assert notes.read_text().splitlines() == ["raised full default", "cleared full default"]
    app.close()


def test_who_holds_the_interpreter_from_the_first_moment_rings_though_it_cannot_tell(
    stage: Stage, worker: Process, port: int, notes: Path
) -> None:
    app = signalling_app(f"sqlite:///{stage.path}")
    time.sleep(CALM * TICK + 1.0)  # its watchdog sleeps by now, and is not to wake
    app.tasks["hog"].delay()
    wait_until(lambda: "raised stuck_worker default" in notes.read_text(), 30.0, "the alarm", 0.1)
    assert scrape(port).get("penstock_worker_slots_busy") == 1
    app.close()


def test_the_port_is_free_when_the_worker_is_killed_and_its_children_go_on(
    stage: Stage, worker: Process, port: int
) -> None:
    app = signalling_app(f"sqlite:///{stage.path}")
    app.tasks["sleep"].delay_many([(60,)] * 2)
    wait_until(lambda: scrape(port).get("penstock_worker_slots_busy") == 2, 20.0, "both slots are busy", 0.1)
    worker.send(signal.SIGKILL)
    wait_until(lambda: not worker.alive(), 10.0, "it is dead")
    MetricsServer(Place(port), no_families).socket.close()
    app.close()
