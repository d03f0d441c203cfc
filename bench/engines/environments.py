"""A folder for each peer, made at its first use and when what it needs has changed: requirements-<peer>.txt for Python,
peers/package.json for Node. Ruby's come from the system's packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.place import ROOT

HERE = Path(__file__).parent
PEERS = HERE / "peers"
CACHE = ROOT / ".venv-bench"


class Missing(Exception):
    """A peer cannot be run here; the message says what would help."""


def python(peer: str) -> str:
    """The interpreter of the peer's environment."""
    wanted = HERE / f"requirements-{peer}.txt"

    def make(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "-r", str(wanted))

    return str(_made(peer, wanted, make) / "bin/python")


def node(peer: str) -> dict[str, str]:
    """The environment variables with which node finds the peer's packages."""
    wanted = PEERS / "package.json"

    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        shutil.copy(wanted, folder)
        _run(program("npm"), "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", folder=folder)

    return {"NODE_PATH": str(_made(peer, wanted, make) / "node_modules")}


def program(name: str, package: str = "") -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package or name})")
    return found


def versions(peer: str) -> str:
    """The peer's own and its client's version, as pinned."""
    lines = (HERE / f"requirements-{peer}.txt").read_text().splitlines()
    return ", ".join(line.replace("==", " ") for line in lines if "==" in line and not line.startswith("#"))


def _made(peer: str, wanted: Path, make: Callable[[Path], None]) -> Path:
    folder = CACHE / peer
    stamp, contents = folder / "made-from", wanted.read_text()
    if not stamp.exists() or stamp.read_text() != contents:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing {peer} into {folder.relative_to(ROOT)}", flush=True)
        make(folder)
        stamp.write_text(contents)
    return folder


def _run(*command: str, folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Missing(f"{' '.join(command)} failed: {done.stderr[-500:]}")
