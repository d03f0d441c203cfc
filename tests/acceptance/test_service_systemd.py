"""Services under a real systemd: workers, readiness, sockets that are open before the broker, secrets."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.absent import not_tested
from tests.acceptance.processes import wait_until
from tests.acceptance.systemd_box import SystemdBox
from tests.servers.process import NotInstalled

TASKS = """
import os
from penstock import Penstock

app = Penstock("tasks", broker="sqlite:///queue.db")

@app.task
def environment():
    return dict(os.environ)
"""
BROKER = """
import os, signal, socket, sys, time
from penstock.server.supervision import inherited_sockets, notify, watchdog_interval
found = inherited_sockets()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(notify("STOPPING=1") - 1))
signal.signal(signal.SIGHUP, lambda *_: (notify("RELOADING=1"), open("reloaded", "w").close(), notify("READY=1")))
assert watchdog_interval() == 15.0
time.sleep(0.5)
notify("READY=1\\nSTATUS=serves")
open("ready", "w").close()
while True:
    if not found:
        signal.pause()
    connection, _ = found[0].accept()
    connection.sendall(f"{os.getpid()} {len(found)} {sys.argv[1:]}".encode())
    connection.close()
"""
ASK = """
import socket, sys
kind = socket.AF_UNIX if sys.argv[1].startswith("/") else socket.AF_INET
with socket.socket(kind) as connection:
    connection.settimeout(20)
    connection.connect(sys.argv[1] if kind == socket.AF_UNIX else ("127.0.0.1", int(sys.argv[1])))
    print(connection.recv(1000).decode())
"""
SECRET = 'it\'s $1 "x" \\ `y` %h'


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SystemdBox]:
    try:
        made = SystemdBox(tmp_path)
    except NotInstalled as missing:
        not_tested(missing)
    yield made
    made.close()


def source() -> str:
    return f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"


def status(box: SystemdBox, name: str, expect: int = 0) -> dict[str, object]:
    found = json.loads(box.penstock("service", "status", name, "--json", expect=expect))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_worker_lives_as_a_service(box: SystemdBox) -> None:
    (box.project / "tasks.py").write_text(TASKS)
    box.penstock(
        *("-A", "tasks", "service", "install", "worker-one", "--manager", "user", "-e", source(), "-e", "SECRET"),
        *("--", "-P", "threads", "-c", "1", "-l", "info"),
        environment={"SECRET": SECRET},
    )
    file = box.home / ".config/penstock/worker-one.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "it's" not in (box.units / "penstock-worker-one.service").read_text()
    assert box.run("systemctl", "--user", "is-enabled", "penstock-worker-one").stdout.strip() == "enabled"
    assert status(box, "worker-one", expect=1)["running"] is False

    before = int(time.time())
    box.penstock("service", "start", "worker-one")
    first = status(box, "worker-one")
    assert before <= int(str(first["since"])) <= time.time()
    assert int(str(first["memory"])) > 1_000_000
    assert first["log"] == "journalctl --user -u penstock-worker-one.service"
    seen = json.loads(box.penstock("-A", "tasks", "call", "tasks.environment", "--wait", "--json"))["result"]
    assert seen["SECRET"] == SECRET

    box.penstock("service", "restart", "worker-one")
    assert status(box, "worker-one")["pid"] != first["pid"]
    box.run("systemctl", "--user", "kill", "--signal=KILL", "penstock-worker-one")
    wait_until(lambda: "started anew 1 times" in str(box.run(*again()).stdout), 30.0, "it is started anew", pause=0.3)

    box.penstock("service", "stop", "worker-one")
    assert status(box, "worker-one", expect=1)["running"] is False
    box.penstock("service", "uninstall", "worker-one", "--purge")
    assert not file.exists()
    assert not list(box.units.glob("penstock-*"))
    assert "is not installed" in box.penstock("service", "status", "worker-one", expect=2)


def again() -> tuple[str, ...]:
    return ("env", source(), sys.executable, "-m", "penstock.cli", "service", "status", "worker-one")


def other_program(box: SystemdBox) -> None:
    """Another program in the broker's place, by a drop-in, as an administrator would."""
    (box.project / "broker.py").write_text(BROKER)
    drop_in = box.units / "penstock-broker.service.d/test.conf"
    drop_in.parent.mkdir()
    command = f"{sys.executable} {box.project}/broker.py $PENSTOCK_OPTIONS"
    drop_in.write_text(f"[Service]\nWorkingDirectory={box.project}\nExecStart=\nExecStart={command}\n")
    box.run("systemctl", "--user", "daemon-reload")


@pytest.mark.slow
def test_a_broker_is_started_when_it_says_so_and_reloads(box: SystemdBox) -> None:
    box.penstock("service", "install", "broker", "--manager", "user", "-e", source(), "--", "--a", "b")
    other_program(box)
    box.penstock("service", "start", "broker")
    assert (box.project / "ready").exists()
    assert status(box, "broker")["running"] is True
    assert box.run("systemctl", "--user", "reload", "penstock-broker").returncode == 0
    wait_until((box.project / "reloaded").exists, 10.0, "it was told to reload")
    box.penstock("service", "stop", "broker")
    (box.project / "broker.py").write_text("raise SystemExit(1)")
    told = box.run("systemctl", "--user", "start", "--no-block", "penstock-broker")
    assert told.returncode == 0
    wait_until(lambda: "ended by exit-code" in str(show(box)), 20.0, "the failure is told", pause=0.2)


def show(box: SystemdBox) -> str:
    done = box.run("env", source(), sys.executable, "-m", "penstock.cli", "service", "status", "broker")
    return done.stdout


@pytest.mark.slow
def test_sockets_are_open_before_the_broker_and_while_it_is_started_anew(box: SystemdBox) -> None:
    port, path = 27419, "/run/user/test/penstock.sock"
    bind = f"PENSTOCK_BROKER_BIND=tcp://127.0.0.1:{port} unix://{path}"
    box.penstock("service", "install", "broker", "--manager", "user", "--socket", "-e", source(), "-e", bind)
    other_program(box)
    assert box.run("systemctl", "--user", "start", "penstock-broker.socket").returncode == 0
    assert status(box, "broker", expect=1)["running"] is False
    first = box.run(sys.executable, "-c", ASK, str(port))  # the first client starts it
    assert first.stdout.split(maxsplit=1)[1] == "2 []\n", first.stderr
    assert status(box, "broker")["pid"] == int(first.stdout.split()[0])
    box.penstock("service", "stop", "broker")
    assert "refused" in box.run(sys.executable, "-c", ASK, str(port)).stderr
    assert box.run(sys.executable, "-c", ASK, path).returncode != 0
    box.penstock("service", "install", "broker", "--manager", "user")
    assert not (box.units / "penstock-broker.socket").exists()
