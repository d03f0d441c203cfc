"""A real systemd of its own, in namespaces of its own: a user's manager, or one that takes itself for the machine's.

What it writes to /etc, /run and /var/lib is gone with it. Of the machine's units it knows only empty targets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import penstock
from penstock.cli.services.systemd import closed_to_others
from tests.acceptance.processes import wait_until
from tests.servers.process import NotInstalled, children

SYSTEMD = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
USERS = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
"$0" --user & wait
"""
"""The shell stays: as the first process of its namespace systemd would take itself for the machine's."""
MACHINES = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/lock
for top in etc var/lib; do
    mkdir -p /run/over/$top/upper /run/over/$top/work
    mount -t overlay -o lowerdir=/$top,upperdir=/run/over/$top/upper,workdir=/run/over/$top/work overlay /$top
done
mount -t tmpfs tmpfs "$(dirname "$0")/system"
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /etc/systemd/system
for target in sysinit basic shutdown network-online sockets multi-user default umount; do
    printf '[Unit]\\nDefaultDependencies=no\\n' >"$(dirname "$0")/system/$target.target"
done
exec "$0" --system --unit=basic.target
"""
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--cgroup", "--uts", "--ipc")
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
"""Where its processes are counted, by the two versions of cgroups."""
ENTER = """
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
exec "$@"
"""


class SystemdBox:
    """`boot` is USERS or MACHINES. Raises `NotInstalled` where there is no systemd, or no right to start it."""

    def __init__(self, folder: Path, boot: str) -> None:
        program = next((one for one in SYSTEMD if Path(one).exists()), None)
        if program is None or shutil.which("nsenter") is None or os.geteuid() != 0:
            raise NotInstalled("systemd cannot be started here (it needs root, and Linux with systemd installed)")
        self._systemctl = ("systemctl", "--user") if boot == USERS else ("systemctl",)
        self.home = folder / "home"
        self.project = folder / "project"
        self.units = self.home / ".config/systemd/user"
        self.units.mkdir(parents=True)
        self.project.mkdir()
        self._environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": "/run/user/test",
            "SYSTEMD_LOG_TARGET": "console",
            "container": "penstock-test",
        }
        self._log = (folder / "systemd.log").open("w")
        self._cgroups = [top / f"penstock-test-{os.getpid()}" for top in CGROUPS if (top / "cgroup.procs").exists()]
        for group in self._cgroups:
            group.mkdir(exist_ok=True)
        self._unshare = subprocess.Popen(
            ["sh", "-c", ENTER, "sh", *map(str, self._cgroups), "--", *UNSHARE, "sh", "-c", boot, program],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            wait_until(self._serves, 20.0, "systemd serves", pause=0.1)
        except AssertionError as error:
            self.close()
            said = Path(self._log.name).read_text()
            raise NotInstalled(f"systemd does not run in this container: {error}: {said}") from error

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, typed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        (inside,) = children(self._unshare.pid)
        return subprocess.run(
            ["nsenter", "--target", str(inside), "--pid", "--mount", "--cgroup", f"--wd={self.project}", *command],
            env={**self._environment, **(environment or {})},
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def systemctl(self, *arguments: str) -> str:
        done = self.run(*self._systemctl, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def penstock(
        self,
        *arguments: str,
        expect: int | None = 0,
        environment: Mapping[str, str] | None = None,
        program: str = sys.executable,
    ) -> str:
        """What it prints. `expect`: its exit code, `None` for any. `program`: the Python of the service."""
        run = f"import sys; sys.executable = {program!r}; from penstock.cli.main import main; main()"
        given = {**source(), **(environment or {})}
        done = self.run(sys.executable, "-c", run, *arguments, environment=given)
        assert expect in (None, done.returncode), done.stdout + done.stderr
        return done.stdout + done.stderr

    def put(self, path: str, text: str) -> None:
        """Write a file as it is seen inside, which anybody may read."""
        done = self.run("sh", "-c", 'umask 022; mkdir -p "$(dirname "$0")"; cat >"$0"', path, typed=text)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        self._log.close()
        for group in self._cgroups:
            wait_until(lambda group=group: _removed(group), 10.0, f"{group} is empty", pause=0.05)

    def _serves(self) -> bool:
        if self._unshare.poll() is not None:
            raise AssertionError(f"it ended with exit code {self._unshare.returncode}")
        return len(children(self._unshare.pid)) == 1 and self.run(*self._systemctl, "list-units").returncode == 0


def source() -> dict[str, str]:
    """Where penstock is, if it is not installed."""
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}


def anybodys_python(modules: str) -> tuple[str, str]:
    """A Python that every user may run, and the PYTHONPATH with which it has `modules`, e.g. "penstock, apsw"."""
    installed = str(Path(penstock.__file__).parents[1])  # an editable install names it in a file that only `site` reads
    path = os.pathsep.join([*source().values(), installed, *(one for one in sys.path if one.endswith("site-packages"))])
    for python in (sys.executable, "/usr/bin/python3"):
        if Path(python).exists() and closed_to_others(python) is None:
            command = [python, "-c", f"import {modules}"]
            if subprocess.run(command, env={"PYTHONPATH": path}, cwd="/", capture_output=True).returncode == 0:
                return python, path
    raise NotInstalled("there is no Python with Penstock that every user of this machine may run")


def _removed(group: Path) -> bool:
    """Remove a control group with all below it; False while one of its processes still ends."""
    for folder in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
