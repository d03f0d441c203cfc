"""The unit files of deploy/ are those that `penstock service install` writes, and systemd takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.absent import not_tested
from tests.doc_pages import REPOSITORY

UNITS = REPOSITORY / "deploy/systemd"
PYTHON = "/srv/letters/.venv/bin/python"
"""In the examples."""
COMMANDS = {
    "broker": ["service", "install", "broker", "--manager", "system", "--socket", "--dry-run"],
    "worker": [
        "-A",
        "tasks",
        "service",
        "install",
        "worker",
        "--manager",
        "system",
        "--as",
        "letters",
        "--folder",
        "/srv/letters",
        "--dry-run",
    ],
}


def written(arguments: list[str]) -> dict[str, str]:
    """File name → text, of a dry run."""
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    parts = re.split(r"^==> (.+)\n", done.stdout.replace(sys.executable, PYTHON), flags=re.MULTILINE)
    return {Path(path).name: text.strip() + "\n" for path, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_units_are_what_an_installation_writes() -> None:
    made = {name: text for arguments in COMMANDS.values() for name, text in written(arguments).items()}
    assert {file.name: file.read_text() for file in UNITS.iterdir()} == made


linux = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units with programs and files that are here, which systemd looks for."""
    if shutil.which("systemd-analyze") is None:
        not_tested("systemd-analyze is not installed (run tools/install-servers)")
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        (tmp_path / unit.name).write_text(unit.read_text().replace(PYTHON, sys.executable))
    return tmp_path


@linux
def test_systemd_takes_the_units(folder: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *map(str, sorted(folder.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@linux
def test_systemd_calls_the_broker_well_protected(folder: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(folder / "penstock-broker.service")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
