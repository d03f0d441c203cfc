"""Machines of a cluster, as network namespaces on a bridge, whose cables can be pulled.

    with Wires(3) as wires:                     # root only
        subprocess.Popen([*wires.inside(0), "redis-server", "--bind", wires.hosts[0]])
        wires.pull(0)                           # nobody reaches it, and it reaches nobody
        wires.plug(0)

While it lasts, this thread, and whatever it starts, is on a machine of its own beside them: nothing of the test can
reach another network.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from types import TracebackType

CLONE_NEWNET = 0x40000000
NET = "10.88.0"
"""Only inside the namespaces made here."""


class Wires:
    """`count` machines at `hosts`; each is a namespace that ends with this object."""

    def __init__(self, count: int) -> None:
        self.hosts = [f"{NET}.{11 + number}" for number in range(count)]
        self._names = [f"penstock-{os.getpid()}-{number}" for number in range(count)]
        self._here = f"penstock-{os.getpid()}-here"
        self._home = -1

    def inside(self, number: int) -> list[str]:
        """The words before a command that run it on that machine."""
        return ["nsenter", f"--net=/run/netns/{self._names[number]}"]

    def pull(self, number: int) -> None:
        _ip("link", "set", f"port{number}", "down")

    def plug(self, number: int) -> None:
        _ip("link", "set", f"port{number}", "up")

    def __enter__(self) -> Wires:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _ip("netns", "add", self._here)
            _enter(Path(f"/run/netns/{self._here}"))
            _ip("link", "set", "lo", "up")
            _ip("link", "add", "bridge", "type", "bridge")
            _ip("addr", "add", f"{NET}.1/24", "dev", "bridge")
            _ip("link", "set", "bridge", "up")
            for number, (name, host) in enumerate(zip(self._names, self.hosts, strict=True)):
                self._add(number, name, host)
        except BaseException:
            self._end()
            raise
        return self

    def _add(self, number: int, name: str, host: str) -> None:
        _ip("netns", "add", name)
        _ip("link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"port{number}", "master", "bridge", "up")
        _ip("-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        _set_namespace(self._home)
        os.close(self._home)
        for name in (*self._names, self._here):
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr}")


def _enter(path: Path) -> None:
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(namespace)
    finally:
        os.close(namespace)


def _set_namespace(descriptor: int) -> None:
    # os.setns is there from Python 3.12 on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
