"""Private real servers for tests: own ports, own folder, no system service touched, ended by process id.

    with redis_server(tmp_path) as server:
        connect(server.url)
        server.stop(signal.SIGKILL)     # what a crash leaves behind ...
        server.start()                  # ... is found again: same folder, same port

A server needs the folder to itself. Without the program, `NotInstalled` is raised; who calls decides what that means.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT = 90.0
STOP_TIMEOUT = 15.0


class NotInstalled(Exception):
    """The server's program is not on this machine."""


@dataclass
class Server:
    """One server process that can be stopped, killed and started again at the same address."""

    url: str
    port: int
    argv: Sequence[str]
    log: Path
    hello: bytes
    """What a client says first; the server is up when the answer starts with `answer`."""
    answer: bytes
    env: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process and return when it answers."""
        with self.log.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches the tests first and they can end it in order.
            self.process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                status = self.process.poll()
                self.stop(signal.SIGKILL)
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.argv[0]} did not start on port {self.port} (exit status {status}):\n{tail}")
            time.sleep(0.02)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Send `sig` to the process and wait for its end; harmless when it has ended."""
        if self.process is None:
            return
        self.process.send_signal(sig)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(self.hello)
                return connection.recv(64).startswith(self.answer)
        except OSError:
            return False


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[Server]:
    """A Redis that survives `SIGKILL`; further `options` as on its command line."""
    port = free_port()
    argv = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    argv += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *options]
    url = f"redis://127.0.0.1:{port}/0"
    yield from _running(Server(url, port, argv, directory / "redis.log", b"PING\r\n", b"+PONG"))


@contextmanager
def rabbitmq_server(directory: Path) -> Iterator[Server]:
    """A one-node RabbitMQ with its own port mapper, cookie and data, run by the user who runs the tests.

    Before `SIGKILL`, let a new quorum queue settle: on 3.10.8, killed right after the declaration, it answered
    `declare` after the restart but hung on `get`, confirmed messages and all (3 of 3); ten seconds later all were kept.
    """
    # Not the one on PATH: Debian's is a wrapper that changes to the system's user and folders.
    script = program("rabbitmq-server", "/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
    port, dist_port, epmd_port = free_port(), free_port(), free_port()
    home = directory / "home"
    home.mkdir(exist_ok=True)
    config = directory / "rabbitmq.conf"
    config.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n"
    )
    (directory / "enabled_plugins").write_text("[].\n")
    env = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"penstock-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        # Idle schedulers must not spin beside the tests.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
        "-kernel inet_dist_use_interface {127,0,0,1}",
        # The script then becomes the Erlang process, so that a signal to its id reaches the broker itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    # In the foreground; Erlang would otherwise leave a daemon of it behind.
    epmd = subprocess.Popen([program("epmd")], env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        # The answer is a method frame on channel 0: connection.start.
        hello, answer = b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"
        yield from _running(Server(url, port, [script], directory / "rabbitmq.log", hello, answer, env))
    finally:
        epmd.kill()
        epmd.wait()


def program(name: str, *folders: str) -> str:
    """The path of a program, looked for in `folders` before PATH and the sbin folders."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise NotInstalled(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        # Nobody comes back to this folder, and an orderly RabbitMQ takes six seconds; a stopped process hears this too.
        server.stop(signal.SIGKILL)
