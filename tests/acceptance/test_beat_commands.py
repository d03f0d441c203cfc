"""`penstock beat`: the timetable is listed and changed from the shell, while a beat runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import wait_until

TASKS = """
from penstock import Penstock

app = Penstock("tasks", beat_lease=1.5, beat_schedule={
    "nightly": {"task": "tasks.greet", "schedule": "0 3 * * *", "args": ("night",)},
})

@app.task
def greet(name: str) -> str:
    return name
"""


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tasks.py").write_text(TASKS)
        (folder / "setup.cfg").touch()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK")}
        self._environment["COLUMNS"] = "200"
        self._beats: list[subprocess.Popen[str]] = []

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [*self._command, *words], cwd=self.folder, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def beat(self, *options: str) -> subprocess.Popen[str]:
        beat = subprocess.Popen(
            [*self._command, "beat", *options],
            cwd=self.folder,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._beats.append(beat)
        return beat

    def listed(self) -> dict[str, Any]:
        data = json.loads(self("beat", "list", "--json"))
        return {one["name"]: one for one in data["schedules"]}

    def close(self) -> None:
        for beat in self._beats:
            beat.kill()
            beat.communicate(timeout=10)

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "penstock.cli", "-A", "tasks"]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.slow
def test_the_timetable_is_listed_and_changed(shell: Shell) -> None:
    assert "no beat has led yet" in shell("beat", "list")
    beat = shell.beat()
    wait_until(lambda: "led by" in shell("beat", "list"), 20, "the beat leads")
    shell("beat", "add", "poll", "every second", "tasks.greet", "Ada", "--jitter", "0.5")
    wait_until(lambda: "beat::tasks:poll@" in shell("peek", "default"), 20, "it ticks")
    shell("beat", "pause", "poll")
    assert shell.listed()["poll"]["paused"] is True
    shell("beat", "resume", "poll")
    assert shell.listed()["poll"]["next"] is not None
    task_id = shell("beat", "trigger", "nightly").strip()
    assert task_id in shell("peek", "default", "--limit", "100")
    shell("beat", "remove", "poll")
    assert list(shell.listed()) == ["nightly"]
    beat.send_signal(signal.SIGINT)
    assert beat.wait(10) == 0
    assert "stopped" in beat.communicate()[1]


@pytest.mark.slow
def test_what_is_wrong_is_said_in_a_line(shell: Shell) -> None:
    for words, says in (
        (("add", "never", "0 0 30 2 *", "tasks.greet", "x"), "can never run"),
        (("add", "who", "every hour", "tasks.great", "x"), "did you mean 'tasks.greet'"),
        (("add", "nightly", "every hour", "tasks.greet", "x"), "is in the app's code"),
        (("add", "args", "every hour", "tasks.greet"), "missing"),
        (("add", "zone", "0 3 * * *", "tasks.greet", "x", "--tz", "Europe/Berlim"), "did you mean 'Europe/Berlin'"),
        (("remove", "nightly"), "remove it there, or pause it"),
        (("pause", "x\x1b[31m"), "there is no schedule"),
    ):
        error = shell("beat", *words, code=1 if words[1] in ("who", "args") else 2)
        assert says in error
        assert "\x1b[31m'" not in error


@pytest.mark.slow
def test_where_ticks_could_be_doubled_it_does_not_start(shell: Shell) -> None:
    text = (shell.folder / "tasks.py").read_text()
    (shell.folder / "tasks.py").write_text(text.replace('"tasks", ', '"tasks", broker="memory://", '))
    assert "lives in one process only" in shell("beat", code=2)
