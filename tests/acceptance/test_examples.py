"""The examples run as their first lines say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import REPOSITORY, wait_until


class Example:
    """A copy of an example in a folder of its own, and its worker."""

    def __init__(self, folder: Path, name: str, **environment: str) -> None:
        self.folder, self.name = folder, name
        self._environment = {**os.environ, **environment}
        self._environment.pop("PENSTOCK_BROKER_URL", None)
        shutil.copy(REPOSITORY / "examples" / f"{name}.py", folder)
        (folder / "setup.cfg").touch()  # a project of its own, with a queue of its own
        command = [sys.executable, "-m", "penstock.cli", "-A", name, "worker", "-B", "-c", "1"]
        self.worker = subprocess.Popen(command, cwd=folder, env=self._environment, stdout=subprocess.DEVNULL)

    def python(self, *arguments: str) -> str:
        return self._run([sys.executable, f"{self.name}.py", *arguments])

    def penstock(self, *arguments: str) -> str:
        return self._run([sys.executable, "-m", "penstock.cli", "-A", self.name, *arguments])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        self.worker.terminate()
        assert self.worker.wait(20) == 0


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Example]:
    example = Example(tmp_path, "pages")
    yield example
    example.close()


@pytest.fixture
def aggregation(tmp_path: Path) -> Iterator[Example]:
    example = Example(tmp_path, "aggregation", AGGREGATE_EVERY="0.5")
    yield example
    example.close()


def test_pages_are_rendered_on_every_change_and_by_schedule(pages: Example) -> None:
    page = pages.folder / "site/index.html"
    pages.python("index", "Hello & welcome")
    wait_until(page.exists, 20, "the page is rendered")
    assert "<p>Hello &amp; welcome</p>" in page.read_text()
    pages.python("index", "Changed")
    wait_until(lambda: "Changed" in page.read_text(), 20, "the page is rendered again")
    assert pages.penstock("beat", "list").splitlines()[1].startswith("hourly  pages.render_all  0 * * * * UTC")
    (pages.folder / "texts/index.txt").write_text("Behind its back")
    pages.penstock("beat", "trigger", "hourly")
    wait_until(lambda: "Behind its back" in page.read_text(), 20, "all pages are rendered")


def test_readings_are_summed_up_by_schedule(aggregation: Example) -> None:
    for value in ("20", "22", "21"):
        aggregation.python("kitchen", value)

    def sums() -> list[str]:
        return aggregation.python().splitlines()

    wait_until(lambda: sum(int(line.split()[2]) for line in sums()) == 3, 20, "all readings are summed up", 0.1)
    assert all(line.startswith("kitchen ") for line in sums())
