"""Services under systemd, driven by systemctl."""

from __future__ import annotations

import contextlib
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.cli.services.definition import BIND, DATA, LOCAL, Service, kind_of, unit_of
from penstock.cli.services.environment_file import write_file
from penstock.cli.services.manager import Planned, ServiceFailed, Status
from penstock.cli.services.unit import MARK, Place, service_unit, socket_unit
from penstock.errors import ConfigError

BOOTED = Path("/run/systemd/system")
"""systemd's own sign that it runs the machine."""
PROPERTIES = ("ActiveState", "SubState", "MainPID", "MemoryCurrent", "NRestarts", "Result")
TIMES = ("ActiveEnterTimestamp", "InactiveEnterTimestamp")
PATIENCE = 900.0
"""Seconds for systemctl, which itself waits for a stop."""


def system_place(name: str) -> Place:
    unit = unit_of(name)
    return Place(True, Path("/etc/systemd/system"), Path("/etc/penstock"), Path("/var/lib", unit), Path("/run", unit))


def user_place(name: str, home: Path, environ: Mapping[str, str]) -> Place:
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "penstock" / name
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or data)
    return Place(False, config / "systemd/user", config / "penstock", data, runtime)


class Systemd:
    """The services of one systemd; `home` and `environ` matter for a user's only."""

    def __init__(self, name: str, home: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._home = home
        self._environ = environ
        self._scope = () if name == "system" else ("--user",)

    def installed(self, name: str) -> bool:
        return self._unit_file(name).exists()

    def environment_file(self, name: str) -> Path:
        return self._place(name).environments / f"{name}.env"

    def defaults(self, name: str) -> dict[str, str]:
        return {DATA: str(self._place(name).data), BIND: LOCAL} if kind_of(name) == "broker" else {}

    def plan(self, service: Service, sockets: bool) -> Sequence[Planned]:
        if self.name == "system" and service.command == "worker" and service.user is None:
            raise ConfigError(
                "say with --as USER who runs your tasks: they are your code, and as root it may do anything "
                "(--as root, if that is meant)"
            )
        if self.name == "user" and service.user is not None:
            raise ConfigError("--as is for the machine's systemd; a user's runs everything as that user: leave it out")
        place = self._place(service.name)
        text = service_unit(service, place, self.environment_file(service.name), sockets)
        planned = [Planned(place.units / f"{service.unit}.service", text, 0o644)]
        if sockets:
            planned.append(Planned(place.units / f"{service.unit}.socket", socket_unit(service), 0o644))
        return planned

    def install(self, service: Service, sockets: bool) -> str:
        planned = self.plan(service, sockets)
        for file in planned:
            self._check_ours(file.path)
        if self.name == "system" and service.user is None:
            check_reachable(service.program[0])
        socket_file = self._unit_file(service.name).with_suffix(".socket")
        if not sockets and socket_file.exists():
            self._check_ours(socket_file)
            self._systemctl("disable", "--now", socket_file.name)
            socket_file.unlink()
        if self.name == "user" and service.command == "broker":
            Path(service.environment[DATA]).mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in planned:
            write_file(file.path, file.text, file.mode)
        self._systemctl("daemon-reload")
        self._systemctl("enable", *(file.path.name for file in planned))
        lingers = "" if self.name == "system" else "; to run it while you are signed out, too: loginctl enable-linger"
        return f"{service.unit}.service is enabled{lingers}"

    def start(self, name: str) -> str:
        self._do("start", name)
        return f"{unit_of(name)}.service is started"

    def stop(self, name: str, timeout: float | None) -> str:
        if timeout is not None:
            raise ConfigError("--timeout is for services without systemd; here TimeoutStopSec= of the unit decides")
        # With its sockets: the next client would start it again.
        self._systemctl("stop", *self._units(name))
        return f"{unit_of(name)}.service is stopped"

    def restart(self, name: str, timeout: float | None) -> str:
        if timeout is not None:
            raise ConfigError("--timeout is for services without systemd; here TimeoutStopSec= of the unit decides")
        self._do("restart", name)
        return f"{unit_of(name)}.service is started anew"

    def status(self, name: str) -> Status:
        unit = f"{unit_of(name)}.service"
        asked = ",".join((*PROPERTIES, *TIMES))
        told = self._systemctl("show", unit, f"--property={asked}", "--timestamp=unix")
        return read_status(name, self.name, told, self._journal(unit))

    def uninstall(self, name: str) -> str:
        files = [self._unit_file(name).with_name(unit) for unit in self._units(name)]
        for file in files:
            self._check_ours(file)
        self._systemctl("disable", "--now", *(file.name for file in files))
        for file in files:
            file.unlink()
        self._systemctl("daemon-reload")
        return f"{unit_of(name)}.service is gone"

    def _place(self, name: str) -> Place:
        return system_place(name) if self.name == "system" else user_place(name, self._home, self._environ)

    def _unit_file(self, name: str) -> Path:
        return self._place(name).units / f"{unit_of(name)}.service"

    def _units(self, name: str) -> list[str]:
        """The socket first, so that nothing starts the service meanwhile."""
        service = self._unit_file(name)
        return [file.name for file in (service.with_suffix(".socket"), service) if file.exists()]

    def _check_ours(self, file: Path) -> None:
        try:
            head = file.read_text("utf-8", errors="replace")[: len(MARK)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
        if head != MARK:
            raise ConfigError(f"{file} was not written by `penstock service install`: move it away first")

    def _do(self, verb: str, name: str) -> None:
        unit = f"{unit_of(name)}.service"
        try:
            self._systemctl(verb, unit)
        except ServiceFailed as error:
            raise ServiceFailed(f"{error}; its log: {self._journal(unit)}") from error

    def _journal(self, unit: str) -> str:
        return " ".join(("journalctl", *self._scope, "-u", unit))

    def _systemctl(self, *arguments: str) -> str:
        program = shutil.which("systemctl")
        if program is None:
            raise ConfigError("systemctl is not on PATH: without systemd use --manager files")
        command = [program, *self._scope, "--no-pager", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise ServiceFailed(f"systemctl {' '.join(arguments)} took more than {PATIENCE:g} s") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise ServiceFailed(f"systemctl {' '.join((*self._scope, *arguments))}: {said}")
        return done.stdout


def closed_to_others(program: str) -> str | None:
    """The folder, or file, on the way to `program` or to what it links to, that a stranger may not pass; `None`: all
    may run it."""
    for path in (Path(program), Path(program).resolve()):
        for one in (*reversed(path.parents), path):
            if not one.stat().st_mode & stat.S_IXOTH:
                return str(one)
    return None


def check_reachable(program: str) -> None:
    """Raise `ConfigError` if a user that owns nothing cannot run `program`."""
    closed = closed_to_others(program)
    if closed is not None:
        raise ConfigError(
            f"the broker has a user of its own, which cannot run {program}: {closed} is closed to it; install Penstock "
            "where everybody may read it, e.g. in /srv/penstock, or say with --as USER who runs it"
        )


def read_status(name: str, manager: str, told: str, log: str) -> Status:
    """What `systemctl show` printed; unknown is `None`."""
    found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    running = found.get("ActiveState") in ("active", "reloading")
    times = [_number(found.get(time, "").removeprefix("@")) for time in TIMES]
    restarts = _number(found.get("NRestarts", "")) or 0
    notes = []
    if found.get("ActiveState") not in ("active", "inactive"):
        notes.append(f"{found.get('ActiveState', 'unknown')} ({found.get('SubState', '?')})")
    if found.get("Result", "success") != "success":
        notes.append(f"ended by {found['Result']}")
    if restarts:
        notes.append(f"started anew {restarts} times after it died")
    return Status(
        service=name,
        manager=manager,
        running=running,
        since=times[0] if running else times[1],
        pid=_number(found.get("MainPID", "")) or None,
        memory=_number(found.get("MemoryCurrent", "")),
        log=log,
        note="; ".join(notes),
    )


def _number(text: str) -> int | None:
    """`None` for "[not set]", and for the number that systemd uses for it."""
    with contextlib.suppress(ValueError):
        number = int(text)
        return number if 0 <= number < 2**63 else None
    return None
