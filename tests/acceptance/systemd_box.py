"""A real systemd of its own, in namespaces of its own: a user's manager, with a home in a folder of the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.acceptance.processes import wait_until
from tests.servers.process import NotInstalled, children

SYSTEMD = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
BOOT = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
"$0" --user & wait
"""
"""The shell stays: as the first process of its namespace systemd would take itself for the machine's."""

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
"""Where its processes are counted, by the two versions of cgroups."""
ENTER = """
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
exec "$@"
"""

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--cgroup")


class SystemdBox:
    """Raises `NotInstalled` where there is no systemd, or no right to start it."""

    def __init__(self, folder: Path) -> None:
        program = next((one for one in SYSTEMD if Path(one).exists()), None)
        if program is None or shutil.which("nsenter") is None or os.geteuid() != 0:
            raise NotInstalled("systemd cannot be started here (it needs root and Linux with systemd installed)")
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
        }
        self._log = (folder / "systemd.log").open("w")
        self._cgroups = [top / f"penstock-test-{os.getpid()}" for top in CGROUPS if (top / "cgroup.procs").exists()]
        for group in self._cgroups:
            group.mkdir(exist_ok=True)
        self._unshare = subprocess.Popen(
            ["sh", "-c", ENTER, "sh", *map(str, self._cgroups), "--", *UNSHARE, "sh", "-c", BOOT, program],
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

    def run(self, *command: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
        (inside,) = children(self._unshare.pid)
        return subprocess.run(
            ["nsenter", "--target", str(inside), "--pid", "--mount", f"--wd={self.project}", *command],
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def penstock(self, *arguments: str, expect: int = 0, environment: Mapping[str, str] = {}) -> str:
        done = self.run(sys.executable, "-m", "penstock.cli", *arguments, environment={**_source(), **environment})
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        self._log.close()
        for group in self._cgroups:
            wait_until(lambda group=group: _removed(group), 10.0, f"{group} is empty", pause=0.05)

    def _serves(self) -> bool:
        if len(children(self._unshare.pid)) != 1:
            return False
        return self.run("systemctl", "--user", "list-units").returncode == 0


def _removed(group: Path) -> bool:
    """Remove a control group with all below it; False while one of its processes still ends."""
    for folder in sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def _source() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
