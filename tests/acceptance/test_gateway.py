"""`penstock gateway` as it is typed, asked by curl and httpx, by slow clients and by too many; and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock import Penstock
from tests.absent import not_tested
from tests.acceptance.processes import REPOSITORY, wait_until
from tests.acceptance.shell import Shell

TASKS = """
import time
from penstock import Penstock

app = Penstock("tasks")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def pages(count: int, size: int):
    for _ in range(count):
        yield "x" * size


@app.task(bind=True)
def steps(self, count: int) -> str:
    for step in range(count):
        self.progress(step, count)
        time.sleep(0.3)
    return "done"
"""
TIMEOUT = 2.0
"""Of slow clients, in seconds."""
CROWD = 1_000


class Site:
    """A project with a worker and a gateway."""

    def __init__(
        self, folder: Path, code: str = TASKS, name: str = "tasks", scope: str = "call:tasks.*", *more: object
    ) -> None:
        self.shell = Shell(folder, code)
        (folder / f"{name}.py").write_text(code)
        self.tokens = folder / "tokens.json"
        self.token = self.add_token("--scope", scope, "--scope", "read", "--scope", "revoke")
        command = ("--port", "0", "--tokens", self.tokens, "--timeout", TIMEOUT, "--max-body", 10_000, *more)
        self.process = self.shell.start("-A", name, "gateway", *command)
        self.url = listening(self.process)
        self.port = int(self.url.rpartition(":")[2])

    def add_token(self, *words: str, name: str = "ada") -> str:
        return self.shell("gateway", "token", "add", name, "--tokens", self.tokens, *words).strip()

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.shell.close()


def listening(process: subprocess.Popen[str]) -> str:
    """The gateway's address, once it has one."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"listening on (https?://\S+)", line)
        if found:
            return found[1]
    raise AssertionError("the gateway did not start")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_tasks_are_called_by_curl_and_httpx(site: Site) -> None:
    curl = shutil.which("curl") or not_tested("curl is not installed")
    site.shell.worker("-P", "threads")

    def curled(path: str, *words: str) -> Any:
        command = [curl, "-s", "--noproxy", "*", "-m", "30", *words, site.url + path]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    mine = ("-H", f"Authorization: Bearer {site.token}")
    body = ("-H", "Content-Type: application/json", "-d", '{"args": [2, 3]}')
    assert curled("/v1/tasks/tasks.add", *body)["status"] == 401
    assert curled("/v1/tasks/tasks.add?wait=20", *mine, *body)["result"] == 5
    accepted = curled("/v1/tasks/tasks.add", *mine, *body)
    assert curled(accepted["links"]["self"] + "?wait=20", *mine)["state"] == "SUCCESS"

    with site.client() as client:
        task = client.post("/v1/tasks/tasks.steps", json={"args": [4]})
        with client.stream("GET", f"{task.headers['location']}/events") as events:
            lines = list(events.iter_lines())
        said = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert any(one.get("progress") for one in said), said
        assert said[-1]["result"] == "done"
        assert client.post("/v1/tasks/tasks.add", json={"args": ["x" * 20_000]}).status_code == 413
        assert (
            client.post("/v1/tasks/tasks.add", content=b"", headers={"content-type": "text/plain"}).status_code == 415
        )

    read_only = site.add_token("--scope", "read")
    with site.client(read_only) as client:
        wait_until(lambda: client.get("/v1/info").status_code == 200, 10, "the new token is known")
        assert client.post("/v1/tasks/tasks.add", json={"args": [1, 2]}).status_code == 403
        site.shell("gateway", "token", "remove", read_only.split("_")[1], "--tokens", site.tokens)
        wait_until(lambda: client.get("/v1/info").status_code == 401, 10, "the token is not taken any more")


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Site]:
    """Who waits is answered soon."""
    site = Site(tmp_path, TASKS, "tasks", "call:tasks.*", "--max-wait", 0.01)
    yield site
    site.close()


def test_it_keeps_to_its_own_description(hasty: Site) -> None:
    """schemathesis asks a real gateway all that its OpenAPI allows, and much that it does not, for some ten seconds."""
    site = hasty
    site.shell.worker("-P", "threads")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [Path(sys.executable).with_name("st"), "run", f"{site.url}/v1/openapi.json", "--max-examples", "2"]
    command += ["--phases", "coverage,fuzzing", "--checks", f"{checks},ignored_auth"]
    done = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {site.token}", "--no-color"],
        cwd=site.shell.folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) generated", done.stdout)[0]) > 100


def test_the_example_takes_orders(tmp_path: Path) -> None:
    site = Site(tmp_path, (REPOSITORY / "examples/reports.py").read_text(), "reports", "call:reports.*")
    try:
        site.shell.start("-A", "reports", "worker", "-P", "threads")
        with site.client() as client:
            order = {"order": {"customer": "ada", "months": [1, 2]}}
            task = client.post("/v1/tasks/reports.render", json={"kwargs": order})
            with client.stream("GET", f"{task.headers['location']}/events") as events:
                lines = [line for line in events.iter_lines() if line.startswith("event: ") and "state" not in line]
            assert lines == ["event: part", "event: part", "event: end"]
            assert client.get(task.headers["location"]).json()["result"] == "01: 3 orders\n02: 6 orders"
            order["order"]["months"] = [1, 13]
            wrong = client.post("/v1/tasks/reports.render", json={"kwargs": order}).json()
            assert wrong["errors"][0]["field"] == "kwargs.order.months[1]"
            assert client.post("/v1/tasks/internal.audit", json={}).status_code == 403
    finally:
        site.close()


def test_slow_clients_stop_nobody_and_are_cut_off(site: Site, measured: Callable[[str], None]) -> None:
    """A thousand of them: some say nothing, some half a head or half a body, some read no answer. They have tokens,
    since without one they come no further than the head."""
    site.shell.worker("-P", "threads")
    crowds = [site.add_token("--scope", "call:*", "--scope", "read", name=f"slow{number}") for number in range(4)]
    with site.client() as good:
        wait_until(lambda: known(site, crowds[-1]), 10, "the new tokens are known")
        pages = good.post("/v1/tasks/tasks.pages?wait=60", json={"args": [100, 64 << 10]}).headers["location"]
        before, memory = quick(good), resident(site)
        opened = time.monotonic()
        slow = [half_open(site, sent) for sent in (b"", b"POST /v1/tasks/tasks.add HTTP/1.1\r\nhost: x\r\n") * 120]
        for token in crowds[:3]:
            slow += [half_open(site, post(token) + b'{"args": [1') for _ in range(190)]
        unread = [half_open(site, get(f"{pages}/events", crowds[3])) for _ in range(CROWD - len(slow))]
        crowded, while_open = quick(good), time.monotonic() - opened
        grown = resident(site) - memory
    measured(
        f"{CROWD} slow clients: p99 of a POST {before:.1f} ms without them, {crowded:.1f} ms with them; "
        f"{grown / 1e6:.0f} MB more"
    )
    assert crowded < max(1_000.0, 20 * before)
    assert grown < 150e6
    for one in slow:
        one.settimeout(20)
        assert gone(one)
    assert time.monotonic() - opened < while_open + TIMEOUT + 15
    wait_until(lambda: sockets(site) < 60, 20, "those who do not read are cut off")
    heard = [complete(one) for one in unread[:5]]
    for one in unread:
        one.close()
    assert not any(heard), "who does not read has been sent all of it"


def half_open(site: Site, sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", site.port), timeout=20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    client.sendall(sent)
    return client


def post(token: str) -> bytes:
    head = f"POST /v1/tasks/tasks.add HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    return (head + "content-type: application/json\r\ncontent-length: 500\r\n\r\n").encode()


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n".encode()


def known(site: Site, token: str) -> bool:
    with site.client(token) as client:
        return client.get("/v1/info").status_code == 200


def quick(client: httpx.Client) -> float:
    """The time of a call, in ms, that 99 of 100 keep to."""
    took = []
    for number in range(100):
        began = time.monotonic()
        assert client.post("/v1/tasks/tasks.add", json={"args": [number, 1]}).status_code == 202
        took.append(time.monotonic() - began)
    return sorted(took)[98] * 1e3


def resident(site: Site) -> int:
    """Bytes of memory of the gateway's process."""
    return int(Path(f"/proc/{site.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def sockets(site: Site) -> int:
    """Open files of the gateway's process, nearly all of which are sockets when there is a crowd."""
    return len(os.listdir(f"/proc/{site.process.pid}/fd"))


def gone(client: socket.socket) -> bool:
    """Whether it is sent away, with an answer or without."""
    try:
        while client.recv(4_096):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    finally:
        client.close()
    return True


def complete(client: socket.socket) -> bool:
    """Whether the end of the events is still to be had."""
    heard = b""
    try:
        while part := client.recv(1 << 16):
            heard = (heard + part)[-1_000:]
    except (ConnectionError, TimeoutError):
        pass
    finally:
        client.close()
    return b"event: end" in heard


def test_a_head_without_end_is_refused(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        client.sendall(b"GET /v1/info HTTP/1.1\r\n")
        heard = b""
        try:
            for _ in range(200):
                client.sendall(b"x-more: " + b"x" * 1_000 + b"\r\n")
            heard = client.recv(1_000)
        except ConnectionError:
            return
    assert heard.startswith(b"HTTP/1.1 431")


def test_what_begins_no_request_is_cut_off(site: Site) -> None:
    """Line ends before a request are no part of it: they must not keep a connection for ever."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        client.sendall(get("/health/live", ""))
        assert client.recv(4_096).startswith(b"HTTP/1.1 200")
        client.sendall(b"\r\n")
        began = time.monotonic()
        assert client.recv(1) == b""
        assert time.monotonic() - began < TIMEOUT + 5


def test_who_asks_without_waiting_is_answered_up_to_a_bound(site: Site) -> None:
    for many, answered in ((20, True), (5_000, False)):
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
            client.sendall(get("/health/live", "") * many)
            heard = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                while heard.count(b"HTTP/1.1 200") < many and (part := client.recv(1 << 16)):
                    heard += part
        assert (heard.count(b"HTTP/1.1 200") == many) is answered


def test_a_body_that_waits_to_be_asked_for_is(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        client.sendall(post(site.token).replace(b"500\r\n\r\n", b"16\r\nexpect: 100-continue\r\n\r\n"))
        assert client.recv(4_096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"args": [1, 2]}')
        assert client.recv(4_096).startswith(b"HTTP/1.1 202")


def test_it_ends_in_order_under_load(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted is in the broker, who waits is answered, and nobody is told of an error of the server's."""
    accepted: list[str] = []
    strange: list[int] = []
    waited: list[int] = []

    def call() -> None:
        with site.client() as client:
            try:
                while True:
                    reply = client.post("/v1/tasks/tasks.add", json={"args": [1, 2]})
                    accepted.append(reply.json()["id"]) if reply.status_code == 202 else strange.append(
                        reply.status_code
                    )
            except httpx.TransportError:
                return

    def wait() -> None:
        with site.client() as client:
            reply = client.post("/v1/tasks/tasks.add?wait=40", json={"args": [1, 2]})
            accepted.append(reply.json()["id"])
            waited.append(reply.status_code)

    threads = [threading.Thread(target=target) for target in (call, call, call, wait, wait)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(accepted) > 50, 30, "calls are accepted")
    began = time.monotonic()
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(30) == 0
    assert time.monotonic() - began < 20
    for thread in threads:
        thread.join(30)
    assert (strange, waited) == ([], [202, 202])
    (queue,) = site.shell.folder.glob("**/*.db")
    app = Penstock("tasks", broker=f"sqlite:///{queue}")
    try:
        assert {app.AsyncResult(task_id).state for task_id in accepted} == {"PENDING"}
    finally:
        app.close()


def test_without_tokens_it_serves_this_machine_only(tmp_path: Path) -> None:
    shell = Shell(tmp_path, TASKS)
    shell("-A", "tasks", "gateway", code=2)
    assert "--tokens FILE" in shell.error
    shell("-A", "tasks", "gateway", "--insecure-no-auth", "--host", "0.0.0.0", code=2)
    assert "only for --host 127.0.0.1" in shell.error
    shell("-A", "tasks", "gateway", "--tokens", "t.json", "--host", "0.0.0.0", code=2)
    assert "--allow-plain" in shell.error
