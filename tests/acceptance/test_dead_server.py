"""A Redis that dies under a worker: it is said once, work goes on by itself, and a stop ends all the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import BrokerUnavailable, OutcomeUnknown, Penstock
from tests.acceptance.processes import wait_until
from tests.servers import redis_server

TASKS = """
import time
from penstock import Penstock
app = Penstock("tasks", broker={url!r}, lease=5, publish_timeout=1)

@app.task
def add(x: int, y: int) -> int:
    return x + y

@app.task
def nap(seconds: float) -> float:
    open("napping", "w").close()
    time.sleep(seconds)
    return seconds

@app.task(time_limit=4)
def stuck() -> None:
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("redis_url")  # there is a Redis to start
def test_the_server_dies_and_the_worker_is_stopped(tmp_path: Path, measured: Callable[[str], None]) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as redis, (tmp_path / "log").open("w") as log:
        (tmp_path / "tasks.py").write_text(TASKS.format(url=redis.url))
        command = [sys.executable, "-m", "penstock.cli", "-A", "tasks", "worker", "-c", "2"]
        worker = subprocess.Popen(command, cwd=tmp_path, stderr=log, stdout=subprocess.DEVNULL)
        app = Penstock("caller", broker=redis.url, publish_timeout=1.0)
        try:
            assert app.send_task("tasks.add", (1, 2)).get(timeout=20) == 3
            nap = app.send_task("tasks.nap", (1.5,))
            wait_until((tmp_path / "napping").exists, 10, "it runs", 0.05)
            redis.stop(signal.SIGKILL)
            # Which of the two: had this process heard of the server's end before it sent?
            with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
                app.send_task("tasks.add", (1, 2))
            time.sleep(4)
            redis.start()
            began = time.monotonic()
            assert nap.get(timeout=20) == 1.5
            assert app.send_task("tasks.add", (2, 2)).get(timeout=20) == 4
            again = time.monotonic() - began
            assert again < 5.0
            app.send_task("tasks.stuck")
            time.sleep(0.5)
            redis.stop(signal.SIGKILL)
            began = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
            stopped = time.monotonic() - began
            assert stopped < 40.0
        finally:
            worker.kill()
            worker.wait()
            app.close()
    text = (tmp_path / "log").read_text()
    assert text.count("upkeep failed, and is tried again until it works") == 2, text
    assert text.count("upkeep works again") == 1
    assert "time limit (4 s)" in text
    measured(
        f"worked again after {again:.1f} s; stopped without the server, and with a task to kill, in {stopped:.1f} s"
    )
