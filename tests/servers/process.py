"""A server process that can be stopped, killed and started again at the same address."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LISTENING_PORTS = range(10_000, 32_000)
"""Below those that Linux and macOS give to connections."""
START_TIMEOUT = 90.0
STOP_TIMEOUT = 15.0


class NotInstalled(Exception):
    """The server's program is not on this machine."""


@dataclass
class Server:
    """One server process."""

    url: str
    port: int
    argv: Sequence[str]
    log: Path
    hello: bytes
    """What a client says first; the server is up when the answer starts with `answer`."""
    answer: bytes
    env: Mapping[str, str] | None = None
    folder: Path | None = None
    """Where it runs; `None`: beside its log."""
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process and return when it answers."""
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start the process, and no more."""
        with self.log.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the tests first and they can end it in order.
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.folder or self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Return when it answers; `RuntimeError` with the end of its log when it never does."""
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                status = self.process.poll()
                self.stop(signal.SIGKILL)
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.argv[0]} did not start on port {self.port} (exit status {status}):\n{tail}")
            time.sleep(0.02)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Send `sig` to the process and wait for its end; harmless when it has ended.

        `SIGKILL` is the end of all its children too, as when the machine goes: none finishes what it was doing.
        """
        if self.process is None:
            return
        if sig == signal.SIGKILL:
            self._kill_family(self.process)
        self.process.send_signal(sig)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._kill_family(self.process)
            self.process.kill()
            self.process.wait()
        self.process = None

    def freeze(self) -> None:
        """SIGSTOP for the process and its children: connections stay open, and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        for pid in children(self.process.pid):
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self.process is not None
        for pid in children(self.process.pid):
            _signal(pid, signal.SIGCONT)
        self.process.send_signal(signal.SIGCONT)

    def _kill_family(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)  # it has no more children from now on
        family = children(process.pid)
        for pid in family:
            _signal(pid, signal.SIGKILL)
        process.kill()
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(map(_lives, family)) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(self.hello)
                return connection.recv(64).startswith(self.answer)
        except OSError:
            return False


def running(server: Server) -> Iterator[Server]:
    """The life of a server within a `with`."""
    server.start()
    try:
        yield server
    finally:
        # Nobody comes back to this folder, and an orderly RabbitMQ takes six seconds; a stopped process hears this too.
        server.stop(signal.SIGKILL)


def program(name: str, *folders: str) -> str:
    """The path of a program, looked for in `folders` before PATH and the sbin folders."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise NotInstalled(f"{name} is not installed (run tools/install-servers)")
    return found


def free_port() -> int:
    """A port that nobody listens at. Not one the system gives away: until the server binds it, any connection that is
    made on this machine could get it as its own end."""
    while True:
        port = secrets.choice(LISTENING_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def children(pid: int) -> list[int]:
    """The process ids of its direct children; none where the system has no `/proc`."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "XZ"
    except OSError:
        return False


def _signal(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)
