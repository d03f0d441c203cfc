"""pytest in pytest: a small project whose tests use the plugin."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SHOP = """
from penstock import Penstock

app = Penstock("shop", broker="redis://nowhere.invalid:1/0", task_default_queue="orders")

@app.task
def add(x: int, y: int) -> int:
    return x + y

@app.task(bind=True, autoretry_for=(OSError,), max_retries=3, default_retry_delay=60)
def fetch(self, page: str) -> int:
    if self.request.retries < 2:
        raise OSError("down")
    add.delay(1, self.request.retries)
    return len(page)

@app.task
async def slow(x: int) -> int:
    return x
"""
INI = "[pytest]\npythonpath = .\npenstock_app = shop:app\n"


def run(folder: Path, tests: str, *arguments: str, ini: str = INI, conftest: str = "") -> str:
    """The output of pytest on a project with this test module."""
    for name, text in (("shop.py", SHOP), ("pytest.ini", ini), ("conftest.py", conftest), ("test_shop.py", tests)):
        (folder / name).write_text(text)
    # Not by the entry point: what is installed here may be another version.
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "penstock.contrib.pytest", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{REPOSITORY}/src"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ended.stdout + ended.stderr


def outcomes(output: str) -> dict[str, int]:
    """Of the last line: `{"passed": 2, "failed": 1}`."""
    last = output.strip().splitlines()[-1]
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}


def passed(output: str, count: int) -> bool:
    assert outcomes(output) == {"passed": count}, output
    return True


PROJECT = """
import asyncio
import pytest
from shop import add, app, fetch, slow

def test_enqueued(penstock_tasks):
    add.delay(1, y=2)
    penstock_tasks.assert_enqueued(add, (1, 2), queue="orders")
    penstock_tasks.run_all()
    penstock_tasks.assert_nothing_enqueued()

def test_time_travel(penstock_tasks, penstock_clock):
    result = fetch.delay("page")
    assert [one.state for one in penstock_tasks.run_all()] == ["RETRY"]
    penstock_clock.advance(60)
    penstock_tasks.run_all()
    penstock_clock.advance(60)
    assert [one.task for one in penstock_tasks.run_all()] == ["shop.fetch", "shop.add"]
    assert (result.get(), result.retries) == (4, 2)

def test_a_real_worker(penstock_worker, penstock_clock):
    assert add.delay(2, 2).get(timeout=10) == 4
    later = slow.apply_async((5,), countdown=3600)
    assert later.state == "PENDING"
    penstock_clock.advance(3600)
    assert later.get(timeout=10) == 5

def test_in_a_loop(penstock_tasks):
    async def main():
        result = await slow.adelay(7)
        await penstock_tasks.arun_all()
        return await result.aget(timeout=10)
    assert asyncio.run(main()) == 7

@pytest.mark.penstock(task_always_eager=True, task_eager_propagates=True)
def test_eager():
    assert add.delay(3, 4).get() == 7
    with pytest.raises(TypeError):
        add.delay("x", 4)

@pytest.mark.parametrize("turn", range(6))
def test_apart(turn):
    '''Without a fixture of ours it is in memory all the same; nothing is left from the tests before.'''
    assert app.engine.url == "memory://"
    assert [queue.depth for queue in app.engine.run(app.engine.inspect.queues())] == [0]
    add.delay(1, 1)
"""


def test_a_project_and_its_app(tmp_path: Path) -> None:
    assert passed(run(tmp_path, PROJECT), 11)


def test_with_xdist(tmp_path: Path) -> None:
    assert passed(run(tmp_path, PROJECT, "-p", "xdist.plugin", "-n", "2"), 11)


def test_the_app_is_as_before_after_each_test(tmp_path: Path) -> None:
    conftest = """
from shop import add, app

def pytest_sessionfinish(session):
    assert app.broker_url == "redis://nowhere.invalid:1/0"
    assert app._engine is None
    assert add.options.queue == "orders"
    print("as before")
"""
    output = run(tmp_path, PROJECT, "-s", conftest=conftest)
    assert "as before" in output
    assert outcomes(output) == {"passed": 11}, output


def test_a_failure_is_shown_where_the_test_is(tmp_path: Path) -> None:
    tests = """
from shop import add

def test_it(penstock_tasks):
    add.delay(1, 3)
    penstock_tasks.assert_enqueued(add, (1, 2))
"""
    output = run(tmp_path, tests)
    assert outcomes(output) == {"failed": 1}
    assert "y: wanted 2, is 3" in output
    assert "shop.add(x=1, y=3)  queue='orders'" in output
    assert "rehearsal.py" not in output  # frames of ours are hidden


def test_without_an_app_there_is_a_new_one_for_each_test(tmp_path: Path) -> None:
    tests = """
import pytest

@pytest.fixture
def penstock_config():
    return {"task_default_queue": "mine", "task_default_priority": 2}

@pytest.fixture
def penstock_worker_parameters():
    return {"concurrency": 1}

@pytest.mark.parametrize("turn", range(2))
@pytest.mark.penstock(task_default_priority=7)
def test_it(penstock_app, penstock_worker, turn):
    task = penstock_app.task(name="t")(lambda: turn)
    assert (task.options.queue, task.options.priority) == ("mine", 7)
    assert task.delay().get(timeout=10) == turn
"""
    assert passed(run(tmp_path, tests, ini="[pytest]\n"), 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [("shop:ap", "'shop' has no 'ap'; did you mean 'app'"), ("shop:add", "not an app"), ("sho", "no module 'sho'")],
)
def test_a_wrong_app_is_said(tmp_path: Path, name: str, words: str) -> None:
    tests = "def test_it(penstock_app): ..."
    output = run(tmp_path, tests, ini=INI.replace("shop:app", name))
    assert words in output
    assert outcomes(output) == {"error": 1}, output


def test_a_run_that_does_not_need_it_loads_nothing(tmp_path: Path) -> None:
    tests = """
import sys

def test_it():
    assert not [name for name in sys.modules if name.startswith(("penstock.engines", "penstock.worker"))]
"""
    assert passed(run(tmp_path, tests, ini="[pytest]\n"), 1)


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    name = project["entry-points"]["pytest11"]["penstock"]
    assert callable(importlib.import_module(name).pytest_addoption)
    assert not [one for one in project["dependencies"] if one.startswith("pytest")]
