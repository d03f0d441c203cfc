"""What a service is, whoever runs it: a name, a command, a folder, and an environment that holds what is secret."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.protocol import PORT

OPTIONS = "PENSTOCK_OPTIONS"
"""The variable of the environment file whose words follow the command."""
DATA = "PENSTOCK_BROKER_DATA"
BIND = "PENSTOCK_BROKER_BIND"
LOCAL = f"tcp://127.0.0.1:{PORT}"
_NAME = re.compile(r"(?P<kind>broker|worker)(-[a-z0-9]([a-z0-9_-]{0,38}[a-z0-9])?)?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}\Z")
_LOGIN = re.compile(r"[a-z_][a-z0-9_.-]{0,30}\Z")
_WORD = re.compile(r"[\w@%+=:,./*-]+\Z", re.ASCII)
"""What systemd's and Python's idea of a word agree on without quotes."""
LONGEST = 32_768


class Kind(Struct, frozen=True):
    """What brokers have in common, and what workers have. Times in seconds."""

    title: str
    tells_ready: bool
    """It says READY=1 when it serves, and WATCHDOG=1 as long as it does."""
    stop_timeout: int


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "broker": Kind("Penstock broker", tells_ready=True, stop_timeout=60),
        # As long as the longest task may take: what still runs after it is killed, and charged an attempt.
        "worker": Kind("Penstock worker", tells_ready=False, stop_timeout=300),
    }
)


class Service(Struct, frozen=True, kw_only=True):
    """`name` as given, e.g. "worker-mail"; `program` starts penstock; `folder` is where it runs, `None` for its own;
    `user` is whom it runs as, `None` for the manager's choice."""

    name: str
    program: tuple[str, ...]
    folder: Path | None = None
    user: str | None = None
    environment: Mapping[str, str]

    @property
    def kind(self) -> Kind:
        return KINDS[self.command]

    @property
    def command(self) -> str:
        return kind_of(self.name)

    @property
    def unit(self) -> str:
        return unit_of(self.name)


def kind_of(name: str) -> str:
    """ "broker" or "worker". Raises `ConfigError` for a name that is not of a service."""
    found = _NAME.match(name)
    if found is None:
        raise ConfigError(
            f"a service is broker or worker, or one of several, e.g. worker-mail (a-z, 0-9, - and _), not {name!r}"
        )
    return found["kind"]


def unit_of(name: str) -> str:
    kind_of(name)
    return f"penstock-{name}"


def check_user(name: str) -> str:
    """Raises `ConfigError` for what cannot be a user's name."""
    if not _LOGIN.match(name):
        raise ConfigError(f"--as {name!r} is not the name of a user: a-z, 0-9, _, . and -, at most 31 characters")
    return name


def check_path(what: str, path: Path) -> Path:
    """Raises `ConfigError` for a path that a unit file cannot hold."""
    if not path.is_absolute() or not str(path).isprintable():
        raise ConfigError(f"{what} {str(path)!r} must be an absolute path without control characters")
    return path


def options_value(words: Sequence[str]) -> str:
    """The words as the environment file holds them. Raises `ConfigError` for one that would need quotes there."""
    for word in words:
        if not _WORD.match(word):
            raise ConfigError(
                f"the option {word!r} has a space or a sign that cannot be passed on safely: "
                "set it in the app, or by a variable with --env"
            )
    return " ".join(words)


def options_of(environment: Mapping[str, str]) -> list[str]:
    """The words that follow the command. Raises `ConfigError` for quotes that do not close."""
    try:
        return shlex.split(environment.get(OPTIONS, ""))
    except ValueError as error:
        raise ConfigError(f"{OPTIONS} in the environment file cannot be read as words: {error}") from error


def variables(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` alone to take what `environ` has, which keeps a secret out of the list of processes.

    Raises `ConfigError` for a name that is none, or a value that a file of lines cannot hold.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            if name not in environ:
                raise ConfigError(f"--env {name}: it is not set here; write {name}=VALUE, or set it first")
            value = environ[name]
        found[check_variable(name)] = check_value(name, value)
    return found


def check_variable(name: str) -> str:
    if not _VARIABLE.match(name):
        raise ConfigError(f"{name!r} is not a variable's name: letters, digits and _, not first a digit")
    return name


def check_value(name: str, value: str) -> str:
    """Raises `ConfigError`, which does not show the value: it may be a secret."""
    if not value.isprintable() or len(value) > LONGEST:
        raise ConfigError(f"the value of {name} must be one printable line of at most {LONGEST:,} characters")
    return value
