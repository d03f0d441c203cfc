"""What systemd and the broker say to each other: readiness, the watchdog, and sockets that are open before the start.

`service start` speaks the same protocol where there is no systemd, so "started" means the same everywhere.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Mapping, MutableMapping

from penstock.errors import ConfigError

FIRST_INHERITED = 3
"""The descriptor after standard error."""
MOST_INHERITED = 64
PATIENCE = 1.0
"""Seconds for a supervisor that does not read; the broker must not hang because of it."""


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the supervisor, e.g. "READY=1" or "STOPPING=1"; several lines are one message. True if it was taken.

    "RELOADING=1" gets the time that belongs to it. False without a supervisor, or when it has gone. Raises
    `ConfigError` for a NOTIFY_SOCKET of a kind that cannot be used here.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if not address.startswith(("/", "@")):
        raise ConfigError(f"NOTIFY_SOCKET={address!r} must be an absolute path, or begin with @: unset it")
    if "RELOADING=1" in state.splitlines():
        state += f"\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return False
    return True


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two "WATCHDOG=1", half of what systemd allows; `None` when it does not watch this process.

    Raises `ConfigError` for a WATCHDOG_USEC that is no time.
    """
    allowed, watched = environ.get("WATCHDOG_USEC"), environ.get("WATCHDOG_PID")
    if allowed is None or (watched is not None and watched != str(os.getpid())):
        return None
    microseconds = _number("WATCHDOG_USEC", allowed)
    if microseconds == 0:
        raise ConfigError("WATCHDOG_USEC=0 must be above 0 microseconds: set WatchdogSec= of the unit, or remove it")
    return microseconds / 2_000_000


def inherited_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that the supervisor opened for this process, in the order of its unit; none is usual.

    They are no longer inherited by children, and neither are the variables that tell of them. Raises `ConfigError` for
    descriptors that are no listening stream sockets.
    """
    count, meant_for = environ.pop("LISTEN_FDS", None), environ.pop("LISTEN_PID", None)
    environ.pop("LISTEN_FDNAMES", None)
    environ.pop("LISTEN_PIDFDID", None)
    if count is None or meant_for != str(os.getpid()):
        return []
    number = _number("LISTEN_FDS", count)
    if number > MOST_INHERITED:
        raise ConfigError(f"LISTEN_FDS={number} must be at most {MOST_INHERITED}: remove sockets from the .socket unit")
    descriptors = range(FIRST_INHERITED, FIRST_INHERITED + number)
    for descriptor in descriptors:
        _check_socket(descriptor)
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]


def _check_socket(descriptor: int) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS names descriptor {descriptor}, which is not open: {error.strerror}") from error
    if not is_socket:
        raise ConfigError(f"inherited descriptor {descriptor} is no socket: only ListenStream= fits in a .socket unit")
    os.set_inheritable(descriptor, False)
    duplicate = socket.socket(fileno=os.dup(descriptor))
    with duplicate:
        listens = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if duplicate.type != socket.SOCK_STREAM or not listens:
            raise ConfigError(
                f"inherited socket {descriptor} does not listen for streams: use ListenStream= and Accept=no"
            )


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ConfigError(f"{name}={value!r} must be a whole number: the supervisor sets it, nothing else should")
    return int(value)
