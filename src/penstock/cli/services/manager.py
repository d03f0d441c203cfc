"""Who runs a service: the machine's systemd, the user's, or nobody but a pid file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from penstock.cli.services.definition import Service
from penstock.errors import PenstockError


class ServiceFailed(PenstockError):
    """What was asked of a service did not happen; the message says where to look."""


class Planned(Struct, frozen=True):
    """A file that an installation writes."""

    path: Path
    text: str
    mode: int


class Status(Struct, frozen=True):
    """`since` is Unix time, or `None` where nobody knows; `memory` is in bytes, of all its processes; `log` is a path
    or a command; `note` says what is unusual."""

    service: str
    manager: str
    running: bool
    since: float | None
    pid: int | None
    memory: int | None
    log: str
    note: str = ""


class Manager(Protocol):
    """Each method but `plan` and `status` says what it did in a line. All raise `ConfigError` or `ServiceFailed`."""

    name: str

    def installed(self, name: str) -> bool: ...

    def environment_file(self, name: str) -> Path: ...

    def defaults(self, name: str) -> dict[str, str]:
        """What the environment file of a service holds when nothing else was said."""
        ...

    def plan(self, service: Service, sockets: bool) -> Sequence[Planned]:
        """What `install` would write, except for the environment file. `sockets`: the manager opens them."""
        ...

    def install(self, service: Service, sockets: bool) -> str: ...

    def start(self, name: str) -> str: ...

    def stop(self, name: str, timeout: float | None) -> str: ...

    def restart(self, name: str, timeout: float | None) -> str: ...

    def status(self, name: str) -> Status: ...

    def uninstall(self, name: str) -> str: ...
