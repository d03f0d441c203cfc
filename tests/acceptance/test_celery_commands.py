"""What Celery's users type, and the limits of a worker that has processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.shell import Shell

TASKS = """
import time
from penstock import Penstock, SoftTimeLimitExceeded

app = Penstock("tasks", task_time_limit=20, task_soft_time_limit=0.3, timezone="Europe/Berlin")

@app.task
def polite() -> str:
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        return "cleaned up"

@app.task(time_limit=0.4, soft_time_limit=0.2)
def stubborn() -> None:
    while True:
        try:
            time.sleep(20)
        except BaseException:
            pass

@app.task(soft_time_limit=10)
def slow() -> None:
    time.sleep(20)

@app.task
def add(x: int, y: int) -> int:
    return x + y
"""


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, TASKS)
    yield shell
    shell.close()


def app(penstock: Shell, *words: object, **how: int) -> str:
    return penstock("-A", "tasks", *words, code=how.get("code", 0))


def test_call_worker_and_beat_take_celerys_options(penstock: Shell) -> None:
    later = app(penstock, "call", "tasks.add", 1, 2, "--countdown", 600).strip()
    gone = app(penstock, "call", "tasks.add", 1, 2, "--expires", 0.001, "--queue", "mail").strip()
    mail = app(penstock, "call", "tasks.add", 1, 2, "--queue", "mail").strip()
    worker = penstock.start(
        "-A",
        "tasks",
        "worker",
        "--burst",
        "-Q",
        "mail,default",
        "-c",
        1,
        "-P",
        "prefork",
        "-n",
        "mine@%h",
        "-l",
        "info",
    )
    output, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0 and "mine@" in output
    states = {id: json.loads(penstock("result", id, "--json", code=code))["state"] for id, code in
              ((later, 3), (gone, 1), (mail, 0))}  # fmt: skip
    assert states == {later: "PENDING", gone: "REVOKED", mail: "SUCCESS"}
    beat = penstock.start("-A", "tasks", "beat", "--loglevel", "info")
    assert beat.stdout is not None and beat.stdout.readline()
    beat.terminate()
    assert beat.wait(20) == 0


def test_task_time_limit_and_task_soft_time_limit_end_tasks(penstock: Shell) -> None:
    """The settings' limits, those of a task, that of a call by its sender, and `terminate=True`."""
    penstock.worker("--max-tasks-per-child", 100, "--max-memory-per-child", 1_000_000)
    assert app(penstock, "call", "tasks.polite", "--wait") == '"cleaned up"\n'
    app(penstock, "call", "tasks.stubborn", "--wait", code=1)
    assert "TimeLimitExceeded" in penstock.error
    script = """
import time
from tasks import app, slow
ended = slow.apply_async(time_limit=0.5, soft_time_limit=0.2)
asked = slow.delay()
while asked.state != "STARTED":
    time.sleep(0.02)
asked.revoke(terminate=True)
print(type(ended.get(timeout=20, propagate=False)).__name__, type(asked.get(timeout=20, propagate=False)).__name__)
"""
    (penstock.folder / "limits.py").write_text(script)
    assert penstock.python("limits.py") == "SoftTimeLimitExceeded TaskRevoked\n"
