"""Every command, typed for real, with a worker running."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import wait_until
from tests.acceptance.shell import PENSTOCK, Shell

EVIL = "\x1b[31mred\x1b[0m \x1b]0;title\x07"
TASKS = f"""
import os
import time
from penstock import Penstock, Queue

app = Penstock("tasks", task_queues=[Queue("small", max_length=2)])

@app.task
def add(x: int, y: int) -> int:
    return x + y

@app.task
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name

@app.task
def boom() -> None:
    raise ValueError({EVIL!r})

@app.task(bind=True)
def march(self, steps: int, pause: float) -> int:
    for step in range(steps):
        self.progress(step, steps, {EVIL!r})
        time.sleep(pause)
    return steps

@app.task
def moody() -> str:
    if not os.path.exists("good"):
        raise ValueError("bad mood")
    return "well"
"""


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, TASKS)
    yield shell
    shell.close()


def app(penstock: Shell, *words: object, **how: int) -> str:
    return penstock("-A", "tasks", *words, code=how.get("code", 0))


def test_calls_are_run_and_their_results_shown(penstock: Shell) -> None:
    penstock.worker()
    assert app(penstock, "call", "tasks.add", 4, -4, "--wait") == "0\n"
    assert app(penstock, "call", "--wait", "tasks.greet", "4", "loud=true") == '"4"\n'
    told = json.loads(app(penstock, "call", "tasks.add", "x=1", "y=2", "--wait", "--json"))
    assert (told["state"], told["result"], told["task"]) == ("SUCCESS", 3, "tasks.add")
    id = app(penstock, "call", "tasks.add", 1, 1).strip()
    shown = app(penstock, "result", id, "--wait", "--timeout", 20)
    assert re.search(r"state +SUCCESS", shown) and re.search(r"result +2\n", shown)


def test_failures_are_exit_codes_and_clean_lines(penstock: Shell) -> None:
    penstock.worker()
    app(penstock, "call", "tasks.boom", "--wait", code=1)
    assert penstock.error.endswith("error: FAILURE: ValueError: �[31mred�[0m �]0;title�\n")
    app(penstock, "call", "tasks.march", 1000, 1, "--wait", "--timeout", 0.2, code=3)
    assert "error:" in penstock.error and "Traceback" not in penstock.error
    app(penstock, "result", "never-seen", code=4)
    app(penstock, "call", "tasks.ad", 1, 2, code=1)
    assert "did you mean 'tasks.add'?" in penstock.error
    app(penstock, "call", "tasks.add", 1, code=1)
    assert "'y'" in penstock.error and "Traceback" not in penstock.error
    app(penstock, "call", "tasks.add", 1, "two", code=1)
    assert "argument 'y'" in penstock.error


def test_a_full_queue_says_so_with_its_own_exit_code(penstock: Shell) -> None:
    for _ in range(2):
        app(penstock, "call", "tasks.add", 1, 1, "-q", "small")
    app(penstock, "call", "tasks.add", 1, 1, "-q", "small", code=75)
    assert "queue 'small' is full: 2 of 2 tasks" in penstock.error
    (line,) = (line for line in app(penstock, "queues", "--sample", 0).splitlines() if line.startswith("small"))
    assert "2 / 2" in line and "100%" in line


def test_queues_are_looked_into_without_the_app(penstock: Shell) -> None:
    id = app(penstock, "call", "tasks.greet", EVIL).strip()
    app(penstock, "call", "tasks.add", 1, 2, "--countdown", 600, "--priority", 9)
    url = f"sqlite:///{penstock.folder / '.penstock' / 'queue.db'}"
    for where in ((), ("--broker", url), ("--broker", "sqlite:///.penstock/queue.db")):
        (queue,) = (one for one in json.loads(penstock(*where, "queues", "--json")) if one["depth"])
        assert (queue["name"], queue["depth"], queue["ready"], queue["delayed"]) == ("default", 2, 1, 1)
        assert queue["enqueued_per_second"] == 0.0
        peeked = json.loads(penstock(*where, "peek", "default", "--json"))
        assert [(one["task"], one["state"]) for one in peeked] == [("tasks.add", "delayed"), ("tasks.greet", "ready")]
        assert (peeked[0]["args"], peeked[1]["args"], peeked[1]["id"]) == ([1, 2], [EVIL], id)
    shown = penstock("peek", "default")
    assert id in shown and "(1, 2)" in shown
    assert json.loads(penstock("result", id, "--json", code=3))["state"] == "PENDING"
    penstock("worker", code=2)
    assert "needs your app" in penstock.error
    penstock("call", "tasks.add", 1, 2, code=2)
    assert penstock("--broker", url, "call", "tasks.add", 1, 2)


def test_purge_asks(penstock: Shell) -> None:
    id = app(penstock, "call", "tasks.add", 1, 2).strip()
    assert penstock("purge", "default", typed="n\n", code=130) == ""
    assert "Drop 1 waiting tasks of 'default'" in penstock.error
    penstock("purge", "default", code=130)  # nobody is there to answer
    assert json.loads(penstock("result", id, "--json", code=3))["state"] == "PENDING"
    assert penstock("purge", "default", typed="y\n") == "dropped 1 tasks\n"
    assert json.loads(penstock("result", id, "--json", code=1))["state"] == "REVOKED"
    assert penstock("purge", "default", "--yes") == "dropped 0 tasks\n"
    penstock("purge", "defualt", "--yes", code=1)
    assert "did you mean 'default'?" in penstock.error


def test_dead_letters_are_listed_shown_retried_and_dropped(penstock: Shell) -> None:
    penstock.worker()
    app(penstock, "call", "tasks.boom", "--wait", code=1)
    app(penstock, "call", "tasks.moody", "--wait", code=1)
    letters = json.loads(penstock("dead", "list", "--json"))
    boom, moody = (next(one for one in letters if one["task"] == f"tasks.{name}") for name in ("boom", "moody"))
    assert boom["reason"].startswith("ValueError") and boom["id"] in penstock("dead", "list")
    shown = penstock("dead", "show", boom["id"])
    assert "tasks.boom" in shown and "Traceback" in shown and "in boom" in shown
    (penstock.folder / "good").touch()
    assert penstock("dead", "retry", moody["id"]) == "put back 1 of 1\n"
    assert "well" in penstock("result", moody["id"], "--wait", "--timeout", 20)
    penstock("dead", "retry", moody["id"], code=1)
    penstock("dead", "drop", code=2)
    assert penstock("dead", "drop", "--all", typed="y\n").endswith("deleted 1 of 1\n")
    assert penstock("dead", "list") == "no dead letters\n"


def test_watch_follows_tasks_to_their_end(penstock: Shell) -> None:
    penstock.worker()
    id = app(penstock, "call", "tasks.march", 10, 0.1).strip()
    lines = app(penstock, "watch", id, "--interval", 0.1).splitlines()
    assert any(re.search(rf"{id} tasks.march STARTED \d/10 ", line) for line in lines), lines
    assert lines[-1].endswith("tasks.march SUCCESS")
    assert "queue default: " in "\n".join(lines)
    failed = app(penstock, "call", "tasks.boom").strip()
    app(penstock, "watch", id, failed, code=1)


def test_watch_finds_what_runs_until_interrupted(penstock: Shell) -> None:
    penstock.worker()
    watching = penstock.start("-A", "tasks", "watch", "--interval", "0.1")
    app(penstock, "call", "tasks.march", 1000, 0.1)
    assert watching.stdout is not None
    assert any("tasks.march STARTED" in line for line in watching.stdout)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 0


def test_doctor_says_what_to_fix(penstock: Shell) -> None:
    told = app(penstock, "doctor")
    assert "5 tasks" in told and "no worker" not in told and "none is running" in told
    assert "→ start one: penstock -A tasks worker" in told
    penstock("--broker", "sqlite:///.penstock/queue.db", "call", "gone.task")
    penstock.worker("-Q", "small")
    wait_until(lambda: "none is running" not in app(penstock, "doctor"), 20, "the worker is seen")
    found = json.loads(app(penstock, "doctor", "--json"))
    texts = " / ".join(one["text"] for one in found if one["level"] == "warning")
    assert "no worker serves queue 'default'" in texts
    assert "1 waiting calls are of 'gone.task', which tasks does not have" in texts


def test_doctor_fails_where_nothing_can_work(penstock: Shell) -> None:
    (penstock.folder / "broken.py").write_text("import surely_not_there\n")
    assert "surely_not_there" in penstock("-A", "broken", "doctor", code=1)
    (penstock.folder / "nosuch.db").write_text("this is no database, but a text")
    assert "not a Penstock database" in penstock("--broker", "sqlite:///nosuch.db", "doctor", code=1)


def test_an_app_that_does_not_import_shows_its_own_traceback(penstock: Shell) -> None:
    (penstock.folder / "broken.py").write_text("def f():\n    return 1 / 0\nf()\n")
    penstock("-A", "broken", "worker", code=2)
    assert "return 1 / 0" in penstock.error and "ZeroDivisionError" in penstock.error
    assert "error: -A broken was found, but raised ZeroDivisionError" in penstock.error.splitlines()[-1]
    assert "penstock/cli" not in penstock.error
    penstock("-A", "brokn", "worker", code=2)
    assert "did you mean 'broken'?" in penstock.error and "Traceback" not in penstock.error


def test_mistyped_words_are_told_apart(penstock: Shell) -> None:
    penstock("wroker", code=2)
    assert "did you mean 'worker'?" in penstock.error
    penstock("worker", "-A", "tasks", code=2)
    assert "-A goes before the command" in penstock.error
    penstock("-A", "tasks", "call", "tasks.add", 1, 2, "--wiat", code=2)
    assert "no option --wiat" in penstock.error
    for options in (("-P", "nope"), ("-c", 0), ("-l", "loud"), ("--lease", 1)):
        penstock("-A", "tasks", "worker", *options, code=2)
        assert "error: " in penstock.error and "Traceback" not in penstock.error
    penstock(code=2)
    assert "Usage: penstock" in penstock.error
    assert "worker" in penstock("--help")
    assert re.match(r"penstock \d+\.\d+", penstock("--version"))


def test_the_environment_names_the_app(penstock: Shell) -> None:
    assert penstock("call", "tasks.add", 1, 2, PENSTOCK_APP="tasks")
    other = f"sqlite:///{penstock.folder / 'other.db'}"
    assert penstock("call", "tasks.add", 1, 2, PENSTOCK_APP="tasks:app", PENSTOCK_BROKER_URL=other)
    assert (penstock.folder / "other.db").exists()
    assert json.loads(penstock("peek", "default", "--json", PENSTOCK_BROKER_URL=other))[0]["task"] == "tasks.add"


def test_a_burst_ends_and_queues_can_be_chosen(penstock: Shell) -> None:
    here, there = (app(penstock, "call", "tasks.add", 1, 2, "-q", queue).strip() for queue in ("small", "other"))
    burst = penstock.worker("--burst", "-Q", "small", "-n", "mine@%h", "--loglevel=debug", "-P", "prefork")
    output, _ = burst.communicate(timeout=30)
    assert burst.returncode == 0
    assert "mine@" in output
    assert "SUCCESS" in penstock("result", here)
    assert "PENDING" in penstock("result", there, code=3)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_other_pools_work(penstock: Shell, pool: str) -> None:
    app(penstock, "call", "tasks.add", 1, 2)
    penstock.worker("--burst", "-P", pool).communicate(timeout=30)
    assert json.loads(penstock("queues", "--json", "--sample", "0"))[0]["settled"] == 1


def test_ctrl_c_finishes_what_runs_and_twice_gives_it_up(penstock: Shell) -> None:
    first = penstock.worker()
    id = app(penstock, "call", "tasks.march", 10, 0.1).strip()
    running(penstock, id)
    first.send_signal(signal.SIGINT)
    assert first.wait(20) == 0
    assert json.loads(penstock("result", id, "--json"))["result"] == 10

    second = penstock.worker()
    id = app(penstock, "call", "tasks.march", 1000, 0.1).strip()
    running(penstock, id)
    second.send_signal(signal.SIGINT)
    time.sleep(0.3)  # as people do; at once, the two would be one signal
    second.send_signal(signal.SIGINT)
    assert second.wait(20) != 0
    assert json.loads(penstock("result", id, "--json", code=3))["state"] == "PENDING"


def running(penstock: Shell, id: str) -> None:
    def started() -> bool:
        output = subprocess.run(
            [PENSTOCK, "-A", "tasks", "result", id, "--json"], cwd=penstock.folder, capture_output=True, text=True
        ).stdout
        return json.loads(output)["state"] == "STARTED"

    wait_until(started, 20, "the task runs")


def test_output_may_be_cut_off(penstock: Shell) -> None:
    for _ in range(2):  # together more than a pipe holds
        app(penstock, "call", "tasks.greet", "x" * 100_000)
    command = f"'{PENSTOCK}' --broker sqlite:///.penstock/queue.db peek default --json | head -1"
    done = subprocess.run(command, shell=True, cwd=penstock.folder, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_the_first_task_runs_soon_after_the_start(penstock: Shell, measured: Callable[[str], None]) -> None:
    best = 60.0
    for _ in range(25):  # what else the machine does makes it slower, and never faster
        id = app(penstock, "call", "tasks.add", 1, 2).strip()
        started = time.time()
        worker = penstock.worker()
        penstock("result", id, "--wait", "--timeout", 20)
        best = min(best, json.loads(penstock("result", id, "--json"))["done"] - started)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        if best < 0.35:
            break
    measured(f"{best:.3f} s from the start of `penstock worker` to the end of the first task")
    assert best < 0.35
