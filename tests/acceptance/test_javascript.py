"""examples/javascript speaks to a real broker: it publishes for Python workers, and runs what Python publishes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import Penstock, RemoteError, TaskRevoked
from penstock.broker import Demand
from tests.absent import not_tested
from tests.acceptance.processes import REPOSITORY, wait_until
from tests.servers import Server

EXAMPLE = REPOSITORY / "examples/javascript"
CLIENT_LINES = 60
PATIENCE = 30.0
TASKS = """
from penstock import Penstock

app = Penstock("tasks")


@app.task
def add(x: int, y: int) -> int:
    return x + y
"""


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    return found or not_tested("node is not installed")


@contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]  # mypy: keywords by name
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def call(node: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [node, str(EXAMPLE / "main.js"), url, "call", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def app(broker: Server) -> Iterator[Penstock]:
    app = Penstock("tasks", broker=broker.url)
    yield app
    app.close()


def test_the_vectors_are_read(node: str) -> None:
    command = [node, str(EXAMPLE / "check_vectors.js"), str(REPOSITORY / "docs/protocol-vectors.json")]
    subprocess.run(command, check=True, timeout=PATIENCE)


def test_the_client_is_short() -> None:
    lines = (EXAMPLE / "penstock.js").read_text("utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith("//")]
    assert len(code) <= CLIENT_LINES
    assert max(map(len, lines)) <= 120


def test_javascript_calls_python(node: str, broker: Server, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    worker = [sys.executable, "-m", "penstock.cli", "-A", "tasks", "worker", "-P", "solo", "-l", "CRITICAL"]
    environment = {**os.environ, "PENSTOCK_BROKER_URL": broker.url}
    with running(*worker, cwd=tmp_path, env=environment) as process:
        good = json.loads(call(node, broker.url, "tasks.add", "2", "3").stdout)
        bad = json.loads(call(node, broker.url, "tasks.add", "2", '"ä"').stdout)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert (good["state"], good["value"]) == ("SUCCESS", 5)
    assert (bad["state"], bad["value"]["type"]) == ("FAILURE", "DecodeError")


def test_a_wrong_password_is_told(node: str, broker: Server) -> None:
    refused = call(node, broker.url.replace("correct", "wrong"), "tasks.add")
    assert refused.returncode == 1
    assert refused.stderr.startswith("access-refused: access refused for user 'worker'")


def test_javascript_runs_what_python_calls(node: str, broker: Server, app: Penstock) -> None:
    shout = [app.send_task("js.shout", (f"hé{n}",), queue="javascript") for n in range(20)]
    total = app.send_task("js.sum", (1, 2.5, 4), queue="javascript")
    failed = app.send_task("js.fail", ("no way",), queue="javascript")
    unknown = app.send_task("js.nothing", queue="javascript")
    expired = app.send_task("js.shout", ("too late",), queue="javascript", expires=0.001)
    with running(node, str(EXAMPLE / "main.js"), broker.url, "work", "javascript"):
        assert [one.get(timeout=PATIENCE) for one in shout] == [f"HÉ{n}!" for n in range(20)]
        assert total.get(timeout=PATIENCE) == 7.5
        with pytest.raises(RemoteError, match="no way") as raised:
            failed.get(timeout=PATIENCE)
        assert raised.value.type_name == "javascript.RangeError"
        with pytest.raises(RemoteError, match=r"no task js\.nothing here"):
            unknown.get(timeout=PATIENCE)
        with pytest.raises(TaskRevoked, match="expired before it could start"):
            expired.get(timeout=PATIENCE)
        # What comes while all slots wait is pushed.
        assert app.send_task("js.shout", ("late",), queue="javascript").get(timeout=PATIENCE) == "LATE!"


def test_a_worker_that_is_killed_gives_its_task_back(node: str, broker: Server, app: Penstock) -> None:
    engine, queue = app.engine, "javascript-killed"
    hangs = app.send_task("js.hang", queue=queue)
    with running(node, str(EXAMPLE / "main.js"), broker.url, "work", queue) as worker:
        wait_until(lambda: hangs.state == "STARTED", PATIENCE, "it runs")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        step = engine.run(engine.broker.step([], Demand((queue,), 1, "next", wait=PATIENCE)))
    (again,) = step.deliveries
    assert again.message is not None
    assert again.message.attempts == 1  # it had noted that it started it: it is charged
