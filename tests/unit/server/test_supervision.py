"""systemd's protocol, over real datagram sockets and with real children that inherit descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from penstock.errors import ConfigError
from penstock.server.supervision import inherited_sockets, notify, watchdog_interval

CHILD = """
import json, os, subprocess, sys
from penstock.server.supervision import inherited_sockets
found = inherited_sockets()
look = "import os, sys; print(os.path.exists('/dev/fd/3'), any(n.startswith('LISTEN_') for n in os.environ))"
print(json.dumps({
    "names": [one.getsockname() for one in found],
    "inheritable": [one.get_inheritable() for one in found],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": len(inherited_sockets()),
    "grandchild": subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, close_fds=False).stdout,
}), flush=True)
for one in found:
    connection, _ = one.accept()
    connection.sendall(b"hello " + connection.recv(16))
"""

LAUNCHER = """
import json, os, sys
for place, number in enumerate(json.loads(sys.argv[1]), 3):
    os.dup2(number, place)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does between fork and exec."""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5.0)
        yield listener


@pytest.mark.parametrize("state", ["READY=1", "STOPPING=1", "STATUS=3 clients", "WATCHDOG=1", "READY=1\nSTATUS=serves"])
def test_a_state_arrives_as_it_is(supervisor: socket.socket, state: str) -> None:
    assert notify(state, {"NOTIFY_SOCKET": supervisor.getsockname()})
    assert supervisor.recv(1000) == state.encode()


def test_a_reload_has_its_time_in_the_same_message(supervisor: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    assert notify("RELOADING=1", {"NOTIFY_SOCKET": supervisor.getsockname()})
    first, second = supervisor.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux'")
def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0penstock-test-{os.getpid()}")
        listener.settimeout(5.0)
        assert notify("READY=1", {"NOTIFY_SOCKET": f"@penstock-test-{os.getpid()}"})
        assert listener.recv(100) == b"READY=1"


def test_without_a_supervisor_nothing_happens(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": ""})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_supervisor_that_does_not_read_holds_nothing_up(supervisor: socket.socket) -> None:
    to = {"NOTIFY_SOCKET": supervisor.getsockname()}
    began = time.monotonic()
    while notify("STATUS=" + "x" * 1000, to):
        assert time.monotonic() - began < 30.0
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize("address", ["relative", "vsock:2:1234"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"NOTIFY_SOCKET=.*absolute path"):
        notify("READY=1", {"NOTIFY_SOCKET": address})


def test_the_watchdog_is_fed_twice_in_its_time() -> None:
    assert watchdog_interval({}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}) == 1.5
    assert watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}) is None


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "soon", "٣", "9" * 20])
def test_a_watchdog_time_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"WATCHDOG_USEC="):
        watchdog_interval({"WATCHDOG_USEC": value})


Listener = socket.socket | TextIO
"""What has a descriptor."""


def child(code: str, *listeners: Listener, count: int | None = None) -> subprocess.Popen[str]:
    """A process that gets `listeners` from descriptor 3 on, as from systemd."""
    # Away from where they are to be, so that no move overwrites another.
    numbers = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 20) for one in listeners]
    given = {"LISTEN_FDS": str(len(listeners) if count is None else count), "LISTEN_FDNAMES": "broker"}
    try:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, json.dumps(numbers), sys.executable, "-W", "error", "-c", code],
            env={**os.environ, **given},
            pass_fds=numbers,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        for number in numbers:
            os.close(number)


def test_a_child_serves_the_sockets_that_it_inherits_and_keeps_them_to_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind(path)
        local.listen()
        address = tcp.getsockname()
        running = child(CHILD, tcp, local)
    with killed_at_the_end(running):
        assert running.stdout is not None
        assert running.stderr is not None
        told = json.loads(running.stdout.readline() or running.stderr.read())
        assert spoken(socket.AF_INET, address) == b"hello you"
        assert spoken(socket.AF_UNIX, path) == b"hello you"
        assert running.wait(10) == 0, running.stderr.read()
    assert told["names"] == [list(address), path]
    assert told["inheritable"] == [False, False]
    assert told["left"] == []
    assert told["again"] == 0
    assert told["grandchild"].split() == ["False", "False"]


def spoken(family: socket.AddressFamily, address: object) -> bytes:
    with socket.socket(family) as connection:
        connection.settimeout(5.0)
        connection.connect(address)
        connection.sendall(b"you")
        return connection.recv(100)


def refused(*listeners: Listener, count: int | None = None) -> str:
    """What a child says of descriptors that it cannot serve."""
    running = child("from penstock.server.supervision import *; inherited_sockets()", *listeners, count=count)
    _, told = running.communicate(timeout=20)
    assert running.returncode == 1
    return told.splitlines()[-1]


def test_descriptors_that_nobody_can_serve_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert "does not listen for streams" in refused(datagrams)
    with socket.socket() as idle:
        assert "does not listen for streams" in refused(idle)
    with (tmp_path / "file").open("w") as file:
        assert "descriptor 3 is no socket" in refused(file)
    assert "descriptor 3, which is not open" in refused(count=1)
    assert "LISTEN_FDS=65 must be at most 64" in refused(count=65)


def test_sockets_of_another_process_are_left_alone() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}
    assert inherited_sockets(environ) == []
    assert environ == {"HOME": "/"}
    assert inherited_sockets({"LISTEN_FDS": "1"}) == []


def broker(folder: Path, *listeners: Listener) -> subprocess.Popen[str]:
    arguments = ["broker", "--data", str(folder / "data")]
    return child(f"from penstock.cli.main import main; main({arguments})", *listeners)


def test_a_broker_refuses_an_inherited_socket_where_passwords_could_be_read(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        running = broker(tmp_path, listener)
    with killed_at_the_end(running):
        _, told = running.communicate(timeout=30)
    assert running.returncode == 2
    assert "passwords would cross the network readable" in told
    assert not (tmp_path / "data/queue.db").exists()


def test_a_broker_tells_its_supervisor_how_it_is(
    supervisor: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    supervisor.settimeout(30.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = broker(tmp_path, listener)
        address = listener.getsockname()
    with killed_at_the_end(running):
        assert told(supervisor).splitlines()[0] == "READY=1"
        socket.create_connection(address, timeout=5.0).close()
        assert [told(supervisor), told(supervisor)] == ["WATCHDOG=1", "WATCHDOG=1"]
        running.send_signal(signal.SIGHUP)
        assert next_but(supervisor, "WATCHDOG=1").startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert next_but(supervisor, "WATCHDOG=1") == "READY=1"
        running.terminate()
        assert next_but(supervisor, "WATCHDOG=1") == "STOPPING=1"
        assert running.wait(30) == 0


@contextlib.contextmanager
def killed_at_the_end(running: subprocess.Popen[str]) -> Iterator[None]:
    with running:
        try:
            yield
        finally:
            running.kill()


def told(supervisor: socket.socket) -> str:
    return supervisor.recv(1000).decode()


def next_but(supervisor: socket.socket, usual: str) -> str:
    while (state := told(supervisor)) == usual:
        pass
    return state
