"""The manual's page of the engines' benchmarks, from the newest run that is kept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench import report
from bench.engines import environments
from bench.engines.sites import SETTINGS, version
from bench.machine import package_version

PREFIX = "engines-"
PAGE = report.PAGE.with_name("benchmarks-engines.md")
METHOD = Path(__file__).parent / "method.md"
CLIENTS = {"redis": ("redis", "hiredis"), "rabbitmq": ("pika",), "postgres": ("asyncpg",)}
PEERS = {
    "redis": ("celery", "dramatiq", "taskiq"),
    "rabbitmq": ("celery", "dramatiq"),
    "postgres": ("pgqueuer", "procrastinate"),
}


def versions(servers: list[str]) -> dict[str, str]:
    """Servers with their settings, our clients, and the peers with theirs."""
    told: dict[str, str] = {}
    for server in servers:
        told[server] = f"{version(server)}; {SETTINGS[server]}"
        for client in CLIENTS[server]:
            told[client] = package_version(client)
        for peer in PEERS[server]:
            told[f"{peer}'s environment"] = environments.versions(peer)
    if "redis" in servers:
        told["node"], told["ruby"] = _program("node", "--version"), _program("ruby", "--version")
    return told


def _program(name: str, option: str) -> str:
    if not shutil.which(name):
        return "not installed"
    return subprocess.run([name, option], capture_output=True, text=True).stdout.strip()


def write() -> Path:
    PAGE.write_text(report.page(report.latest(PREFIX), METHOD))
    return PAGE
