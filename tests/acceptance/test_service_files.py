"""Services without systemd: real workers in the background, started and stopped by the real command."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.server.access.rights import Permission
from tests.acceptance.processes import state, wait_until
from tests.servers.broker_node import PASSWORD, USER, permit
from tests.servers.process import children, free_port

TASKS = """
import os, time
from pathlib import Path
from penstock import Penstock

app = Penstock("tasks", broker="sqlite:///queue.db")

@app.task
def environment():
    return dict(os.environ)

@app.task
def long():
    Path("started").touch()
    while not Path("finish").exists():
        time.sleep(0.01)
"""
TELLS_READY = """
import signal, sys, time
from penstock.server.supervision import notify
print("arguments", sys.argv[1:], flush=True)
notify("STATUS=recovering")
time.sleep(2.0)  # longer than a worker is watched
print("serves", flush=True)
assert notify("READY=1")
signal.pause()
"""


class Box:
    """A home, a project in it, and the command."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.home.mkdir()
        self.project.mkdir()
        (self.project / "tasks.py").write_text(TASKS)
        self.state = self.home / ".local/state/penstock"
        self._services: set[str] = set()

    def penstock(self, *arguments: str, expect: int = 0, timeout: float = 60.0) -> str:
        done = self.launch(*arguments)
        out, err = done.communicate(timeout=timeout)
        assert done.returncode == expect, out + err
        return out + err

    def launch(self, *arguments: str) -> subprocess.Popen[str]:
        words = list(arguments)
        if "service" in words:
            self._services.add(words[words.index("service") + 2])
        environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", *words],
            cwd=self.project,
            env={**environment, "HOME": str(self.home), "FROM_THE_SHELL": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def install(self, name: str = "worker", *options: str) -> str:
        path = [f"--env=PYTHONPATH={os.environ['PYTHONPATH']}"] if "PYTHONPATH" in os.environ else []
        return self.penstock(
            "-A", "tasks", "service", "install", name, "--manager", "files", *path, "-e", "SECRET=it's $1 \"x\" \\",
            "--", "-P", "prefork", "-c", "1", *options,
        )  # fmt: skip

    def status(self, name: str = "worker", expect: int = 0) -> dict[str, object]:
        found = json.loads(self.penstock("service", "status", name, "--json", expect=expect))
        assert isinstance(found, dict)
        return found

    def told(self, name: str = "worker") -> str:
        """The status as people see it, whatever it is."""
        return "".join(self.launch("service", "status", name).communicate(timeout=60))

    def pid(self, name: str = "worker") -> int:
        pid = self.status(name)["pid"]
        assert isinstance(pid, int)
        return pid

    def pid_file(self, name: str = "worker") -> Path:
        return self.state / f"{name}.pid"

    def log(self, name: str = "worker") -> str:
        return (self.state / f"{name}.log").read_text()

    def close(self) -> None:
        for name in self._services:
            file = self.pid_file(name)
            if not file.exists() or not file.read_text():
                continue
            leader = json.loads(file.read_text())["pid"]
            if _session(leader) == leader and leader not in (os.getpid(), 1):
                os.killpg(leader, signal.SIGKILL)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_a_worker_lives_as_a_service(box: Box) -> None:
    told = box.install()
    assert "penstock service start worker" in told
    assert stat.S_IMODE((box.state / "worker.env").stat().st_mode) == 0o600
    assert "SECRET" not in (box.state / "worker.json").read_text()
    assert box.status(expect=1)["running"] is False

    before = time.time()
    assert "is started" in box.penstock("service", "start", "worker")
    first = box.status()
    assert first["running"] is True
    assert first["manager"] == "files"
    assert before <= float(str(first["since"])) <= time.time()
    assert int(str(first["memory"])) > 1_000_000
    assert first["log"] == str(box.state / "worker.log")

    seen = json.loads(box.penstock("-A", "tasks", "call", "tasks.environment", "--wait", "--json"))["result"]
    assert seen["SECRET"] == 'it\'s $1 "x" \\'
    assert "FROM_THE_SHELL" not in seen
    assert "NOTIFY_SOCKET" not in seen

    assert "runs already" in box.penstock("service", "start", "worker")
    assert box.pid() == first["pid"]

    box.penstock("service", "restart", "worker")
    second = box.pid()
    assert second != first["pid"]
    assert state(int(str(first["pid"]))) in "XZ"

    box.penstock("service", "stop", "worker")
    assert state(second) in "XZ"
    stopped = box.status(expect=1)
    assert (stopped["running"], stopped["note"]) == (False, "")
    assert time.time() - float(str(stopped["since"])) < 30.0
    assert "stopped since" in box.penstock("service", "status", "worker", expect=1)
    assert "is stopped" in box.penstock("service", "stop", "worker")

    told = box.penstock("service", "uninstall", "worker")
    assert "worker.env (--purge removes them)" in told
    assert sorted(path.name for path in box.state.iterdir()) == ["worker.env", "worker.log"]
    assert "is not installed" in box.penstock("service", "start", "worker", expect=2)


@pytest.mark.slow
def test_a_stop_waits_for_what_runs_and_then_says_what_still_does(box: Box) -> None:
    box.install()
    box.penstock("service", "start", "worker")
    pid = box.pid()
    box.penstock("-A", "tasks", "call", "tasks.long")
    wait_until((box.project / "started").exists, 20.0, "the task runs")

    told = box.penstock("service", "stop", "worker", "--timeout", "0.5", expect=1)
    assert f"still runs after 0.5 s: {pid} (" in told
    assert str(children(pid)[0]) in told
    assert box.status()["pid"] == pid

    stopping = box.launch("service", "stop", "worker")
    (box.project / "finish").touch()
    assert stopping.communicate(timeout=30)[0] == "worker is stopped\n"
    assert state(pid) in "XZ"


@pytest.mark.slow
def test_a_worker_that_was_killed_is_stopped_and_can_be_started(box: Box) -> None:
    box.install()
    box.penstock("service", "start", "worker")
    pid = box.pid()
    os.kill(pid, signal.SIGKILL)  # its child ends by itself, warmly, and holds the lock until then
    wait_until(lambda: "ended by itself" in box.told(), 30.0, "the lock is free", pause=0.2)
    box.penstock("service", "start", "worker")
    assert box.pid() != pid
    box.penstock("service", "stop", "worker")


def test_a_stale_pid_of_another_program_is_never_killed(box: Box) -> None:
    box.install()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    with stranger:
        box.pid_file().write_text(json.dumps({"pid": stranger.pid, "began": "1", "since": time.time()}))
        told = box.status(expect=1)
        assert (told["running"], told["pid"]) == (False, None)
        assert "is stopped" in box.penstock("service", "stop", "worker")
        assert stranger.poll() is None

        # The same while something holds the lock: it is not ours by its beginning.
        hold = "import fcntl, signal; fcntl.flock(0, 2); print(flush=True); signal.pause()"
        with box.pid_file().open("r+") as file:
            holder = subprocess.Popen([sys.executable, "-c", hold], stdin=file, stdout=subprocess.PIPE)
        with holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            box.pid_file().write_text(json.dumps({"pid": stranger.pid, "began": "1", "since": time.time()}))
            assert box.status()["pid"] is None
            assert "still runs after 0 s" in box.penstock("service", "stop", "worker", "--timeout", "0", expect=1)
            assert "runs already" in box.penstock("service", "start", "worker")
            holder.kill()
        assert stranger.poll() is None
        stranger.kill()


def test_a_start_that_fails_shows_why(box: Box) -> None:
    (box.project / "tasks.py").write_text("nothing = 1")
    box.install()
    told = box.penstock("service", "start", "worker", expect=1)
    assert "ended at once, with exit code 2" in told
    assert "has no Penstock app" in told
    assert box.status(expect=1)["note"] == "it ended by itself; its log says why"


def test_two_starts_at_once_start_one(box: Box) -> None:
    box.install()
    starts = [box.launch("service", "start", "worker") for _ in range(4)]
    told = sorted(one.communicate(timeout=60)[0] for one in starts)
    assert sum("is started" in one for one in told) == 1, told
    assert all("runs already" in one or "is started" in one for one in told)
    box.penstock("service", "stop", "worker")


def program(box: Box, code: str) -> None:
    """Another program in the broker's place."""
    definition = box.state / "broker.json"
    given = json.loads(definition.read_text())
    (box.project / "program.py").write_text(code)
    given["command"] = [sys.executable, str(box.project / "program.py"), "broker"]
    definition.write_text(json.dumps(given))


def test_a_broker_is_started_when_it_says_that_it_serves(box: Box) -> None:
    path = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
    box.penstock("service", "install", "broker", "--manager", "files", "-e", path, "--", "--tls-cert", "a/b.pem")
    assert stat.S_IMODE((box.state / "broker").stat().st_mode) == 0o700
    program(box, TELLS_READY)
    box.penstock("service", "start", "broker")
    assert box.log("broker").splitlines() == ["arguments ['broker', '--tls-cert', 'a/b.pem']", "serves"]
    box.penstock("service", "stop", "broker")
    program(box, "raise SystemExit('the port is taken')")
    assert "the port is taken" in box.penstock("service", "start", "broker", expect=1)


@pytest.mark.slow
def test_a_broker_and_its_worker_live_as_services(box: Box) -> None:
    (box.project / "far.py").write_text("from penstock import Penstock\napp = Penstock('far')\n"
        "@app.task\ndef add(x: int, y: int) -> int: return x + y\n")  # fmt: skip
    port = free_port()
    path = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
    url = f"PENSTOCK_BROKER_URL=penstock://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/"
    box.penstock("service", "install", "broker", "--manager", "files", "-e", path, "-e",
        f"PENSTOCK_BROKER_BIND=tcp://127.0.0.1:{port} unix://{box.home}/own.sock")  # fmt: skip
    permit(box.state / "broker", USER, PASSWORD, Permission("*", ".*", ".*", ".*"))
    box.penstock("-A", "far", "service", "install", "worker-far", "--manager", "files", "-e", path, "-e", url)
    box.penstock("service", "start", "broker")
    box.penstock("service", "start", "worker-far")
    call = ("-b", url.partition("=")[2], "call", "far.add", "2", "3", "--wait", "--timeout", "30")
    assert box.penstock(*call).startswith("5\n")
    os.kill(box.pid("broker"), signal.SIGHUP)
    box.penstock("service", "restart", "broker")
    assert box.penstock(*call).startswith("5\n")  # the worker came back by itself
    box.penstock("service", "stop", "worker-far")
    box.penstock("service", "stop", "broker")
    assert box.log("broker").rstrip().endswith("stopped")
    assert not (box.home / "own.sock").exists()
