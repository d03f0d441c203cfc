"""Services without systemd: a process in the background, a locked pid file, a log file.

The lock is the service's: its process holds it from before its first instruction until its end, its children too. So a
pid file that was left behind, by a crash or a reboot, says nothing and harms nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from penstock.cli.services import environment_file, processes
from penstock.cli.services.definition import BIND, DATA, KINDS, LOCAL, Service, check_path, kind_of, options_of
from penstock.cli.services.environment_file import write_file
from penstock.cli.services.manager import Planned, ServiceFailed, Status
from penstock.errors import ConfigError

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a service takes from the shell that starts it; the rest is in its environment file."""
READY_WITHIN = 60.0
"""Seconds for a broker to serve: it may have to recover its store first."""
SETTLED = 1.5
"""Seconds after which a worker, which tells nobody when it is ready, has seen what is wrong with its set-up."""
PAUSE = 0.05
LAST_LINES = 15
LARGEST = 1 << 16


class Definition(Struct, forbid_unknown_fields=True):
    """What `install` leaves for `start`."""

    command: list[str]
    folder: str


class Note(Struct, forbid_unknown_fields=True):
    """What the pid file says. Times are Unix times; `stopped` is set by `stop` only."""

    pid: int
    began: str
    since: float
    stopped: float | None = None


class PidFiles:
    def __init__(self, home: Path, environ: Mapping[str, str]) -> None:
        self.name = "files"
        state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
        self._folder = check_path("XDG_STATE_HOME", state / "penstock")
        self._environ = environ

    def installed(self, name: str) -> bool:
        return self._path(name, "json").exists()

    def environment_file(self, name: str) -> Path:
        return self._path(name, "env")

    def defaults(self, name: str) -> dict[str, str]:
        return {DATA: str(self._folder / name), BIND: LOCAL} if kind_of(name) == "broker" else {}

    def plan(self, service: Service, sockets: bool) -> Sequence[Planned]:
        me = pwd.getpwuid(os.geteuid()).pw_name
        if service.user not in (None, me):
            raise ConfigError(f"--as {service.user}: without systemd a service runs as who starts it: sign in as them")
        if sockets:
            raise ConfigError("--socket is systemd's: without it the broker opens its sockets itself, leave it out")
        folder = service.folder or Path(service.environment[DATA])
        definition = Definition([*service.program, service.command], str(folder))
        text = msgspec.json.format(msgspec.json.encode(definition), indent=2).decode() + "\n"
        return [Planned(self._path(service.name, "json"), text, 0o600)]

    def install(self, service: Service, sockets: bool) -> str:
        (planned,) = self.plan(service, sockets)
        if service.command == "broker":
            Path(service.environment[DATA]).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(planned.path, planned.text, planned.mode)
        return f"{service.name} is installed; after a reboot it must be started again"

    def start(self, name: str) -> str:
        definition = self._definition(name)
        environment = environment_file.read(self.environment_file(name))
        base = {key: value for key, value in self._environ.items() if key in KEPT}
        words = [*definition.command, *options_of(environment)]
        lock = self._lock(name)
        if lock is None:
            return f"{name} runs already ({self._who(name)})"
        try:
            with _Readiness() as readiness:
                telling = {"NOTIFY_SOCKET": readiness.address} if KINDS[kind_of(name)].tells_ready else {}
                process = self._launch(name, words, definition.folder, {**base, **environment, **telling}, lock)
                self._await(name, process, readiness if telling else None)
        finally:
            os.close(lock)
        return f"{name} is started (pid {process.pid}); its log: {self._path(name, 'log')}"

    def stop(self, name: str, timeout: float | None) -> str:
        self._definition(name)
        patience = KINDS[kind_of(name)].stop_timeout if timeout is None else timeout
        lock = self._lock(name)
        if lock is None:
            note, process = self._running(name)
            if process is not None:
                processes.terminate(process)
            lock = self._await_end(name, note, patience)
        else:
            note = self._note(name)
        try:
            if note is not None and note.stopped is None:
                _write(lock, msgspec.structs.replace(note, stopped=time.time()))
        finally:
            os.close(lock)
        return f"{name} is stopped"

    def restart(self, name: str, timeout: float | None) -> str:
        self.stop(name, timeout)
        return self.start(name)

    def status(self, name: str) -> Status:
        self._definition(name)
        log = self._path(name, "log")
        lock = self._lock(name)
        if lock is not None:
            os.close(lock)
            note = self._note(name)
            if note is None or note.stopped is not None:
                when = None if note is None else note.stopped
                return Status(name, self.name, False, when, None, None, str(log))
            last = log.stat().st_mtime if log.exists() else None
            return Status(name, self.name, False, last, None, None, str(log), "it ended by itself; its log says why")
        note, process = self._running(name)
        family = processes.group(note.pid) if note is not None else []
        since = note.since if note is not None and process is not None else None
        pid = process.pid if process is not None else None
        lost = "" if process is not None else f"its main process has gone, these are left: {_listed(family)}"
        return Status(name, self.name, True, since, pid, processes.memory(family), str(log), lost)

    def uninstall(self, name: str) -> str:
        self.stop(name, None)
        with contextlib.suppress(FileNotFoundError):
            self._path(name, "pid").unlink()
        self._path(name, "json").unlink()
        return f"{name} is gone; its log stays: {self._path(name, 'log')}"

    # -- files

    def _path(self, name: str, suffix: str) -> Path:
        kind_of(name)  # a name is part of a path from here on
        return self._folder / f"{name}.{suffix}"

    def _definition(self, name: str) -> Definition:
        path = self._path(name, "json")
        try:
            return msgspec.json.decode(path.read_bytes(), type=Definition)
        except FileNotFoundError as error:
            raise ConfigError(f"{name} is not installed: penstock service install {name}") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{path} cannot be used ({error}): penstock service install {name}") from error

    def _lock(self, name: str) -> int | None:
        """The pid file, locked by us; `None` when the service holds it. Raises `ConfigError`."""
        path = self._path(name, "pid")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    def _note(self, name: str) -> Note | None:
        """`None` before the first start, and for what somebody else wrote there."""
        with contextlib.suppress(OSError, msgspec.MsgspecError), self._path(name, "pid").open("rb") as file:
            return msgspec.json.decode(file.read(LARGEST), type=Note)
        return None

    def _running(self, name: str) -> tuple[Note | None, processes.Process | None]:
        """The main process of a service whose lock is held, unless it ended before its children did."""
        note = self._note(name)
        process = processes.look(note.pid) if note is not None else None
        return note, process if note is not None and process is not None and process.began == note.began else None

    def _who(self, name: str) -> str:
        note, process = self._running(name)
        if process is not None:
            return f"pid {process.pid}"
        left = processes.group(note.pid) if note is not None else []
        return f"its main process has gone, these are left: {_listed(left)}" if left else "or is being started"

    # -- processes

    def _launch(
        self, name: str, words: Sequence[str], folder: str, environment: Mapping[str, str], lock: int
    ) -> subprocess.Popen[bytes]:
        log_path = self._path(name, "log")
        try:
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the log {log_path} cannot be opened: {error.strerror}") from error
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            raise ServiceFailed(f"{name} cannot be started: {error.strerror}: {error.filename}") from error
        finally:
            os.close(log)
        seen = processes.look(process.pid)
        _write(lock, Note(process.pid, seen.began if seen is not None else "", time.time()))
        return process

    def _await(self, name: str, process: subprocess.Popen[bytes], readiness: _Readiness | None) -> None:
        """Until it serves, or at least did not fail at once. Raises `ServiceFailed` with the end of its log."""
        deadline = time.monotonic() + (SETTLED if readiness is None else READY_WITHIN)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServiceFailed(
                    f"{name} ended at once, with exit code {process.returncode}; the end of its log "
                    f"({self._path(name, 'log')}):\n{self._tail(name)}"
                )
            if readiness is not None and readiness.seen(PAUSE):
                return
            if readiness is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(deadline - time.monotonic())
        if readiness is not None:
            raise ServiceFailed(
                f"{name} runs (pid {process.pid}), but does not serve after {READY_WITHIN:g} s: see its log, "
                f"{self._path(name, 'log')}"
            )

    def _await_end(self, name: str, note: Note | None, patience: float) -> int:
        """The lock, once all its processes have ended. Raises `ServiceFailed` that says what still runs."""
        deadline = time.monotonic() + patience
        while (lock := self._lock(name)) is None:
            if time.monotonic() > deadline:
                left = processes.group(note.pid) if note is not None else []
                raise ServiceFailed(
                    f"{name} was told to stop and still runs after {patience:g} s: {_listed(left)}; wait longer with "
                    "--timeout, or give up what it does: kill -QUIT a worker, kill -KILL a broker"
                )
            time.sleep(PAUSE)
        return lock

    def _tail(self, name: str) -> str:
        with self._path(name, "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LARGEST))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-LAST_LINES:])


class _Readiness:
    """A socket to which a broker says READY=1, as to systemd."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.address = ""

    def __enter__(self) -> _Readiness:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-"))
        self._socket = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.address = os.path.join(folder, "notify")
        self._socket.bind(self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def seen(self, wait: float) -> bool:
        """READY=1 came, within `wait` seconds."""
        self._socket.settimeout(wait)
        try:
            return "READY=1" in self._socket.recv(LARGEST).decode(errors="replace").splitlines()
        except TimeoutError:
            return False


def _write(lock: int, note: Note) -> None:
    data = msgspec.json.encode(note)
    os.pwrite(lock, data, 0)
    os.ftruncate(lock, len(data))


def _listed(left: Sequence[processes.Process]) -> str:
    return ", ".join(f"{one.pid} ({one.command[:60]})" for one in left) or "a process outside of its group"
