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
from tests.acceptance.systemd_box import MACHINES, USERS, SystemdBox, anybodys_python, source
from tests.doc_pages import REPOSITORY
from tests.servers.broker_node import PASSWORD, USER
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
ADD = """
from penstock import Penstock
from penstock.worker import Worker, WorkerOptions
app = Penstock("far")
add = app.task(name="add")(lambda x, y: x + y)
call = add.delay(2, 3)
assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL")).run() == 0
print(call.get(timeout=10))
"""
PERMIT = """
import sys
from pathlib import Path
from penstock.server.access.rights import Permission
from tests.servers.broker_node import PASSWORD, USER, permit
permit(Path(sys.argv[1]), USER, PASSWORD, Permission("*", ".*", ".*", ".*"))
"""
PORT = 27420
HERE = {"PYTHONPATH": os.pathsep.join([*source().values(), str(REPOSITORY)])}
STATUS = ("service", "status")
SECRET = 'it\'s $1 "x" \\ `y` %h'


def started(folder: Path, boot: str) -> Iterator[SystemdBox]:
    try:
        made = SystemdBox(folder, boot)
    except NotInstalled as missing:
        not_tested(missing)
    yield made
    made.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SystemdBox]:
    yield from started(tmp_path, USERS)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SystemdBox]:
    yield from started(tmp_path, MACHINES)


def path() -> str:
    return f"PYTHONPATH={source().get('PYTHONPATH', '')}"


def status(box: SystemdBox, name: str, expect: int | None = 0) -> dict[str, object]:
    found = json.loads(box.penstock("service", "status", name, "--json", expect=expect))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_worker_lives_as_a_service(box: SystemdBox) -> None:
    (box.project / "tasks.py").write_text(TASKS)
    box.penstock(
        *("-A", "tasks", "service", "install", "worker-one", "--manager", "user", "-e", path(), "-e", "SECRET"),
        *("--", "-P", "threads", "-c", "1", "-l", "info"),
        environment={"SECRET": SECRET},
    )
    file = box.home / ".config/penstock/worker-one.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "it's" not in (box.units / "penstock-worker-one.service").read_text()
    assert box.systemctl("is-enabled", "penstock-worker-one") == "enabled"
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
    box.systemctl("kill", "--signal=KILL", "penstock-worker-one")
    wait_until(
        lambda: "started anew 1 times" in box.penstock(*STATUS, "worker-one", expect=None),
        30.0,
        "it is started anew",
        pause=0.3,
    )

    box.penstock("service", "stop", "worker-one")
    assert status(box, "worker-one", expect=1)["running"] is False
    box.penstock("service", "uninstall", "worker-one", "--purge")
    assert not file.exists()
    assert not list(box.units.glob("penstock-*"))
    assert "is not installed" in box.penstock("service", "status", "worker-one", expect=2)


def other_program(box: SystemdBox) -> None:
    """Another program in the broker's place, by a drop-in, as an administrator would."""
    (box.project / "broker.py").write_text(BROKER)
    drop_in = box.units / "penstock-broker.service.d/test.conf"
    drop_in.parent.mkdir()
    command = f"{sys.executable} {box.project}/broker.py $PENSTOCK_OPTIONS"
    drop_in.write_text(f"[Service]\nWorkingDirectory={box.project}\nExecStart=\nExecStart={command}\n")
    box.systemctl("daemon-reload")


@pytest.mark.slow
def test_a_broker_is_started_when_it_says_so_and_reloads(box: SystemdBox) -> None:
    box.penstock("service", "install", "broker", "--manager", "user", "-e", path(), "--", "--a", "b")
    other_program(box)
    box.penstock("service", "start", "broker")
    assert (box.project / "ready").exists()
    assert status(box, "broker")["running"] is True
    box.systemctl("reload", "penstock-broker")
    wait_until((box.project / "reloaded").exists, 10.0, "it was told to reload")
    box.penstock("service", "stop", "broker")
    (box.project / "broker.py").write_text("raise SystemExit(1)")
    box.systemctl("start", "--no-block", "penstock-broker")
    wait_until(
        lambda: "ended by exit-code" in box.penstock(*STATUS, "broker", expect=None),
        20.0,
        "the failure is told",
        pause=0.2,
    )


@pytest.mark.slow
def test_sockets_are_open_before_the_broker_and_while_it_is_started_anew(box: SystemdBox) -> None:
    port, file = 27419, "/run/user/test/penstock.sock"
    bind = f"PENSTOCK_BROKER_BIND=tcp://127.0.0.1:{port} unix://{file}"
    box.penstock("service", "install", "broker", "--manager", "user", "--socket", "-e", path(), "-e", bind)
    other_program(box)
    box.systemctl("start", "penstock-broker.socket")
    assert status(box, "broker", expect=1)["running"] is False
    first = box.run(sys.executable, "-c", ASK, str(port))  # the first client starts it
    assert first.stdout.split(maxsplit=1)[1] == "2 []\n", first.stderr
    assert status(box, "broker")["pid"] == int(first.stdout.split()[0])
    box.penstock("service", "stop", "broker")
    assert "refused" in box.run(sys.executable, "-c", ASK, str(port)).stderr
    assert box.run(sys.executable, "-c", ASK, file).returncode != 0
    box.penstock("service", "install", "broker", "--manager", "user")
    assert not (box.units / "penstock-broker.socket").exists()


@pytest.mark.slow
def test_the_machine_s_broker_serves_behind_its_protection(machine: SystemdBox) -> None:
    try:
        python, modules = anybodys_python("penstock, apsw, argon2, uvloop")
    except NotInstalled as missing:
        not_tested(missing)
    bind = f"PENSTOCK_BROKER_BIND=tcp://127.0.0.1:{PORT} unix:///run/penstock.sock"
    options = ("--manager", "system", "--socket", "-e", f"PYTHONPATH={modules}", "-e", bind)
    machine.penstock("service", "install", "broker", *options, program=python)
    # A shorter watch than the unit's, for the last part of this test; and a checkout below /tmp is not hidden from it.
    seen = " ".join(one for one in modules.split(os.pathsep) if Path(one).exists())
    changed = f"[Service]\nWatchdogSec=2\nBindReadOnlyPaths={seen}\n"
    machine.put("/etc/systemd/system/penstock-broker.service.d/test.conf", changed)
    machine.systemctl("daemon-reload")
    machine.penstock("service", "start", "broker")
    first = status(machine, "broker")
    assert first["running"] is True

    made = machine.run(sys.executable, "-c", PERMIT, "/var/lib/penstock-broker", environment=HERE)
    assert made.returncode == 0, made.stderr
    for place in (f"127.0.0.1:{PORT}/", "localhost/?socket=/run/penstock.sock"):
        url = f"penstock://{USER}:{PASSWORD.replace(' ', '%20')}@{place}"
        done = machine.run(sys.executable, "-c", ADD, environment={**HERE, "PENSTOCK_BROKER_URL": url})
        assert done.stdout.endswith("\n5\n"), done.stdout + done.stderr

    own = machine.run(
        "sh", "-c", f"stat -c '%U %u' /proc/{first['pid']}; stat -Lc '%a %U' /var/lib/penstock-broker/*.db"
    )
    assert "root" not in own.stdout
    assert "penstock-broker 0" not in own.stdout
    mounts = machine.run("cat", f"/proc/{first['pid']}/mounts").stdout.splitlines()
    rights = {line.split()[1]: line.split()[3].split(",")[0] for line in mounts}
    assert (rights["/"], rights["/etc"], rights["/var/lib"]) == ("ro", "ro", "ro")
    assert rights["/var/lib/private/penstock-broker"] == "rw"
    assert machine.run("stat", "-Lc", "%a", "/var/lib/penstock-broker").stdout.strip() == "700"
    assert machine.run("stat", "-c", "%a %U", "/etc/penstock/broker.env").stdout.strip() == "600 root"

    machine.systemctl("reload", "penstock-broker")
    assert status(machine, "broker")["pid"] == first["pid"]
    machine.systemctl("kill", "--signal=STOP", "penstock-broker")  # it hangs
    wait_until(lambda: serves_anew(machine, first["pid"]), 30.0, "another one serves", pause=0.3)

    machine.penstock("service", "stop", "broker")
    machine.penstock("service", "uninstall", "broker")
    assert machine.run("ls", "/etc/systemd/system").stdout == "penstock-broker.service.d\n"


def serves_anew(machine: SystemdBox, former: object) -> bool:
    now = status(machine, "broker", expect=None)
    return now["running"] is True and now["pid"] != former and "started anew 1 times" in str(now["note"])
