"""Settings from a module, tasks from packages, routes, queues that are paused, and queues of one worker: with real
workers and commands."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import wait_until
from tests.acceptance.shell import Shell

APP = """
import os
from penstock import Penstock

app = Penstock("tasks")
app.config_from_object("shop.settings")
app.autodiscover_tasks(["shop.mail", "shop.web", "shop.empty"])
"""
SETTINGS = """
from tasks import app as _app

assert _app.name == "tasks"  # it is made before its settings are read
worker_direct = True
task_queues = ["default", {"name": "post", "alias": "mail", "max_length": 3}]
task_routes = [{"shop.mail.*": "mail"}, "shop.routes.by_size"]
task_annotations = {"shop.mail.*": {"max_retries": 7}}
"""
ROUTES = """
from tasks import app

def by_size(name, args, kwargs, options, task=None):
    assert task is app.tasks.get(name)
    return {"queue": "large", "priority": 1} if args and args[0] == "large" else None
"""
TASKS = """
import time
from tasks import app

@app.task(bind=True)
def where(self, what: str = "") -> list:
    return [self.request.queue, self.request.priority, self.options.max_retries, self.request.hostname]

@app.task
def wait() -> None:
    time.sleep(0.004)
"""


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, APP)
    for package in ("", "mail", "web", "empty"):
        (tmp_path / "shop" / package).mkdir()
        (tmp_path / "shop" / package / "__init__.py").touch()
    for name, text in (("settings", SETTINGS), ("routes", ROUTES), ("mail/tasks", TASKS), ("web/tasks", TASKS)):
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    yield shell
    shell.close()


DJANGO = {
    "shop/__init__.py": "from shop.tasks_app import app\n",  # as Django's documentation of Celery has it
    "shop/tasks_app.py": """
import os
from penstock import Penstock

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Penstock("shop")
app.config_from_object("django.conf:settings", namespace="PENSTOCK")
app.autodiscover_tasks()
""",
    "shop/settings.py": """
SECRET_KEY = "of a test"
INSTALLED_APPS = ["shop.mail", "shop.empty"]
PENSTOCK_TASK_ROUTES = {"shop.mail.*": "mail"}
PENSTOCK_WORKER_POOL = "threads"
""",
    "shop/mail/tasks.py": TASKS.replace("from tasks import app", "from shop import app\nimport django.apps")
    + "\nassert django.apps.apps.ready\n",
}


def call(penstock: Shell, *words: object) -> list[object]:
    found: list[object] = json.loads(penstock("-A", "tasks", "call", *words, "--wait", "--timeout", 20))
    return found


def stop(worker: "subprocess.Popen[str]") -> None:
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)
    assert worker.returncode == 0


def test_a_worker_takes_settings_tasks_and_routes_from_modules(penstock: Shell) -> None:
    penstock.worker("-Q", "default,mail,large", "-n", "one@here")
    assert call(penstock, "shop.mail.tasks.where") == ["post", 5, 7, "one@here"]
    assert call(penstock, "shop.web.tasks.where") == ["default", 5, 3, "one@here"]
    assert call(penstock, "shop.web.tasks.where", "large") == ["large", 1, 3, "one@here"]
    assert call(penstock, "shop.web.tasks.where", "large", "-q", "mail")[:2] == ["post", 1]


def test_a_django_project(penstock: Shell) -> None:
    pytest.importorskip("django")
    for name, text in DJANGO.items():
        (penstock.folder / name).write_text(text)
    worker = penstock.start("-A", "shop", "worker", "-n", "one@here")
    task = penstock("-A", "shop", "call", "shop.mail.tasks.where", "--wait", "--timeout", 20)
    assert json.loads(task) == ["mail", 5, 3, "one@here"]
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=20)
    assert "threads" in output and "shop.mail.tasks.where" in output


def test_mistakes_in_the_settings_are_one_line(penstock: Shell) -> None:
    (penstock.folder / "shop/settings.py").write_text("task_time_limits = 5\n")
    penstock("-A", "tasks", "worker", code=2)
    assert penstock.error == (
        "error: shop.settings: unknown setting 'task_time_limits'; did you mean 'task_time_limit'?\n"
    )


def test_a_paused_queue_stays_so_whatever_becomes_of_its_workers(penstock: Shell) -> None:
    first = penstock.worker("-n", "one@here")
    assert call(penstock, "shop.mail.tasks.where")[0] == "post"
    assert penstock("-A", "tasks", "queues", "pause", "mail") == "post paused; 0 tasks in it\n"
    task = penstock("-A", "tasks", "call", "shop.mail.tasks.where").strip()
    assert call(penstock, "shop.web.tasks.where")[0] == "default"
    assert penstock("queues", "pause", "post") == "post was paused already; 1 tasks in it\n"
    stop(first)

    penstock.worker("-n", "two@here")
    assert call(penstock, "shop.web.tasks.where")[3] == "two@here"
    assert "PENDING" in penstock("result", task, code=3)
    (line,) = (line for line in penstock("queues", "--sample", 0).splitlines() if line.startswith("post"))
    assert line.split()[:5] == ["post", "paused", "1", "/", "3"]
    assert "penstock queues resume post" in penstock("-A", "tasks", "doctor")
    for _ in range(2):
        penstock("-A", "tasks", "call", "shop.mail.tasks.where")
    penstock("-A", "tasks", "call", "shop.mail.tasks.where", code=75)

    assert penstock("-A", "tasks", "queues", "resume", "mail") == "post resumed\n"
    penstock("result", task, "--wait", "--timeout", 20)
    assert penstock("queues", "resume", "post") == "post was not paused\n"
    penstock("queues", "pause", "pots", code=1)
    assert "there is no queue 'pots'; did you mean 'post'?" in penstock.error


def test_a_worker_that_was_told_of_is_the_one_that_runs_it(penstock: Shell) -> None:
    for name in ("one", "two"):
        penstock.worker("-n", f"{name}@here", "-c", 1)
    for name in ("one", "two", "one"):
        queue = f"{name}@here.direct"
        assert call(penstock, "shop.web.tasks.where", "-q", queue)[0::3] == [queue, f"{name}@here"]


def test_a_worker_that_is_full_of_work_is_paused_without_loss(penstock: Shell) -> None:
    worker = penstock.worker("-n", "one@here")
    call(penstock, "shop.web.tasks.where")
    script = (
        "from tasks import app\nwith app.batch():\n    for _ in range(1_000):\n"
        "        app.send_task('shop.web.tasks.wait')\n"
    )
    (penstock.folder / "fill.py").write_text(script)
    python = Path(worker.args[0]).with_name("python")  # type: ignore[index]  # it was given as a list
    subprocess.run([python, "fill.py"], cwd=penstock.folder, check=True, timeout=60)
    penstock("queues", "pause", "default")

    def settled() -> int:
        (info,) = (one for one in json.loads(penstock("queues", "--json", "--sample", 0)) if one["name"] == "default")
        assert info["enqueued"] == info["settled"] + info["depth"]
        return int(info["settled"]) if info["leased"] == 0 else -1

    wait_until(lambda: settled() >= 0, 20, "nothing runs any more")
    paused_at = settled()
    assert paused_at < 1_001, "it was paused in the middle"
    assert call(penstock, "shop.mail.tasks.where")[0] == "post", "the worker is alive"
    assert settled() == paused_at
    penstock("queues", "resume", "default")
    wait_until(lambda: settled() == 1_001, 30, "all has been run")
