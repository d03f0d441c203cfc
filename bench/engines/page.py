"""The manual's page of the engines' benchmarks, from the newest run that is kept."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

from bench import report
from bench.engines import environments
from bench.engines.sites import SETTINGS, version
from bench.engines.table import TITLES
from bench.machine import package_version
from bench.measure import Result

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
            told[f"{client} (client)"] = package_version(client)
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
    PAGE.write_text(page(report.latest(PREFIX)))
    return PAGE


def page(run: report.Run) -> str:
    """The method, and a table for each server. Losses are in it like the rest."""
    lines = report.origin(run)
    for server, title in TITLES.items():
        own = [_untitled(result, f"{title}, ") for result in run.results if result.name.startswith(f"{server}/")]
        if own:
            lines += ["", f"### {title}", "", *report.table(own)]
    return METHOD.read_text().replace(report.MARK, "\n".join([*lines, ""]))


def _untitled(result: Result, title: str) -> Result:
    return msgspec.structs.replace(result, what=result.what.removeprefix(title))
