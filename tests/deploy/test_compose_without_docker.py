"""What compose.yaml would start, started as processes: the same commands, environments and secrets, other paths."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.processes import wait_until
from tests.doc_pages import REPOSITORY
from tests.servers.process import free_port

DEPLOY = REPOSITORY / "deploy"
PENSTOCK = [sys.executable, "-m", "penstock.cli"]


class Composed:
    """The services of the file, by name, in a folder that stands for their file systems."""

    def __init__(self, folder: Path) -> None:
        self.services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
        self.secrets = folder / "secrets"
        self.data = folder / "data"
        self.data.mkdir(mode=0o700)
        self.port = free_port()
        made = subprocess.run([DEPLOY / "make-secrets", self.secrets], capture_output=True, text=True, check=True)
        self.printed = made.stdout
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []

    def here(self, text: str) -> str:
        """A value of a container, as it is in this folder."""
        text = text.replace("/run/secrets", str(self.secrets)).replace("/var/lib/penstock", str(self.data))
        return text.replace("@broker:7419", f"@127.0.0.1:{self.port}").replace("0.0.0.0:7419", f"127.0.0.1:{self.port}")

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PYTHONUNBUFFERED": "1"}
        if service["build"]["target"] == "broker":
            found |= dict(re.findall(r'(PENSTOCK_BROKER_[A-Z]+)="?([^"\\\n]*[^"\\\s])', self._image()))
        for file in service.get("env_file", []):
            found |= dict(line.split("=", 1) for line in (self._folder / file).read_text().splitlines())
        return {name: self.here(value) for name, value in {**found, **service.get("environment", {})}.items()}

    def start(self, name: str) -> Path:
        """Start a service; the path of what it prints."""
        service = self.services[name]
        own = service.get("entrypoint")
        command = [sys.executable, *own[1:]] if own else [*PENSTOCK, *service.get("command", [name])]
        log = self._folder / f"{name}.log"
        with log.open("w") as file:
            self._running.append(
                subprocess.Popen(
                    command,
                    cwd=self._folder / "example" if "/srv/app" in str(service["volumes"]) else self.data,
                    env=self.environment(service),
                    stdout=file,
                    stderr=file,
                )
            )
        return log

    def tell_the_user(self) -> None:
        """The commands that make-secrets prints, without Docker's part of them."""
        for line in self.printed.replace("\\\n", " ").splitlines():
            if "docker compose" in line:
                words, _, file = self.here(line.partition(" broker ")[2]).partition(" <")
                typed = (self.secrets / Path(file.strip()).name).open() if file else None
                done = subprocess.run([*PENSTOCK, *shlex.split(words)], stdin=typed, capture_output=True, text=True)
                if typed is not None:
                    typed.close()
                assert done.returncode == 0, done.stderr

    def health(self) -> int:
        """The exit code of the image's own health check."""
        found = re.search(r"HEALTHCHECK.*\n\s*CMD (\[.*\])", self._image())
        assert found is not None
        _, *words = json.loads(self.here(found[1]))
        return subprocess.run([*PENSTOCK, *words], capture_output=True, timeout=60).returncode

    def stop(self) -> list[int]:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
        return [process.returncode for process in self._running]

    def _image(self) -> str:
        return (DEPLOY / "Dockerfile").read_text()


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    shutil.copytree(DEPLOY / "example", tmp_path / "example")
    made = Composed(tmp_path)
    yield made
    made.stop()


@pytest.mark.slow
def test_the_example_works(composed: Composed) -> None:
    composed.tell_the_user()
    assert composed.health() == 75
    broker = composed.start("broker")
    wait_until(lambda: "serving" in broker.read_text(), 30.0, "the broker serves")
    assert f"listening on penstocks://127.0.0.1:{composed.port}" in broker.read_text()
    assert composed.health() == 0
    assert "refused" not in broker.read_text()
    assert "one-time credential" in broker.read_text()
    worker, app = composed.start("worker"), composed.start("app")
    wait_until(lambda: "Hello, visitor 1!" in app.read_text(), 30.0, f"a greeting: {app.read_text()}")
    assert "letters" in worker.read_text()
    assert composed.stop()[:2] == [0, 0], worker.read_text()
