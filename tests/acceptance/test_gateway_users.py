"""`penstock gateway` before `penstock broker`: users sign in with curl, and its settings change while it runs."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.absent import not_tested
from tests.acceptance.processes import wait_until
from tests.acceptance.shell import Shell
from tests.acceptance.test_gateway import listening
from tests.servers import Server
from tests.servers.broker_node import PASSWORD, USER
from tests.unit.server.test_tls import Authority

TASKS = """
from penstock import Penstock

app = Penstock("tasks", broker="{url}")


@app.task(queue="{queue}")
def add(x: int, y: int) -> int:
    return x + y
"""


class Site:
    """A gateway that has no user of its own, and a worker that has one."""

    def __init__(self, folder: Path, broker: Server) -> None:
        queue = f"gateway-{time.time_ns()}"
        workers = folder / "worker"
        workers.mkdir()
        self.worker = Shell(workers, TASKS.format(url=broker.url, queue=queue))
        self.shell = Shell(folder, TASKS.format(url=f"penstock://127.0.0.1:{broker.port}/", queue=queue))
        self.settings = folder / "gateway.toml"
        self.settings.write_text("rate = 1000\n")
        command = ("--port", "0", "--settings", self.settings, "--cors-origin", "https://shop.example")
        self.process = self.shell.start("-A", "tasks", "gateway", *command)
        self.url = listening(self.process)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.worker.close()
        self.shell.close()


@pytest.fixture
def site(tmp_path: Path, broker: Server) -> Iterator[Site]:
    site = Site(tmp_path, broker)
    yield site
    site.close()


def test_users_of_the_broker_are_let_in_and_settings_change(site: Site) -> None:
    curl = shutil.which("curl") or not_tested("curl is not installed")
    site.worker.worker("-P", "threads")
    body = ("-H", "Content-Type: application/json", "-d", '{"args": [2, 3], "options": {"countdown": 0.2}}')

    def curled(path: str, *words: str) -> Any:
        command = [curl, "-s", "--noproxy", "*", "-m", "30", *words, site.url + path]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    def call(*words: str) -> Any:
        return curled("/v1/tasks/tasks.add?wait=20", *words, *body)

    assert curled("/health/ready")["status"] == "ready"
    assert call()["status"] == call("-u", f"{USER}:wrong one").get("status") == 401
    # The first worker declares the queue; until then it is not there for who may not configure.
    assert call("-u", f"{USER}:{PASSWORD}")["result"] == 5
    with httpx.Client(base_url=site.url, auth=(USER, PASSWORD), timeout=30, trust_env=False) as client:
        reply = client.get("/v1/info", headers={"origin": "https://shop.example"})
        assert reply.json()["user"] == USER
        assert reply.headers["access-control-allow-origin"] == "https://shop.example"
        assert client.post("/v1/tasks/tasks.add", json={"args": [1]}).json()["errors"][0]["field"] == "kwargs.y"
        site.settings.write_text("rate = -5\n")
        site.settings.write_text('expose = ["other.*"]\nburst = 77\n')
        wait_until(lambda: client.get("/v1/info").json()["tasks"] == [], 10, "the new settings are in force")
        assert client.post("/v1/tasks/tasks.add", json={"args": [1, 2]}).status_code == 404


def test_over_tls_it_speaks_what_is_safe_and_waits_for_no_greeting(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    issued = authority.issue("gateway")
    shell = Shell(tmp_path, TASKS.format(url="sqlite:///q.db", queue="default"))
    command = ("--port", "0", "--tokens", "t.json", "--timeout", "2")
    process = shell.start("-A", "tasks", "gateway", *command, "--tls-cert", issued.certificate, "--tls-key", issued.key)
    try:
        url = listening(process)
        port = int(url.rpartition(":")[2])
        context = ssl.create_default_context(cafile=authority.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with httpx.Client(base_url=url, verify=context, trust_env=False) as client:
            assert client.get("/health/ready").status_code == 200
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            began = time.monotonic()
            assert silent.recv(1) == b""
            assert time.monotonic() - began < 10
    finally:
        process.terminate()
        shell.close()


def test_limits_that_are_none_are_refused(tmp_path: Path) -> None:
    shell = Shell(tmp_path, TASKS.format(url="sqlite:///q.db", queue="default"))
    (tmp_path / "bad.toml").write_text("max_body = 0\n")
    for words, why in (
        (("--timeout", "-1"), "body_timeout must be between 0.001 and 3,600 seconds, not -1"),
        (("--grace", "-3"), "grace must be between 0"),
        (("--settings", tmp_path / "bad.toml"), "max_body must be a whole number between 1 and 1,073,741,824, not 0"),
    ):
        shell("-A", "tasks", "gateway", "--tokens", "t.json", "--port", "0", *words, code=2)
        assert why in shell.error, shell.error
