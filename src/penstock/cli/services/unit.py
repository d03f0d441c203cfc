"""The unit files of a service, as text. What is secret is in the environment file, which they only name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from penstock.cli.services.definition import BIND, DATA, Service, check_path
from penstock.errors import ConfigError
from penstock.server.settings import parse_bind

MARK = "# Written by `penstock service install`; change it with `systemctl edit`, or by installing again."
_SAFE = re.compile(r"[\w@+=:,./-]+\Z", re.ASCII)

OF_ALL = ("NoNewPrivileges=yes", "LockPersonality=yes", "RestrictSUIDSGID=yes")
OF_SYSTEM = (
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictRealtime=yes",
    "SystemCallArchitectures=native",
)
OF_BROKER = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "SystemCallFilter=@system-service",
    "CapabilityBoundingSet=",
)
OF_WORKER = (
    "# Tasks are your code, which may write where its user may; only /usr, /boot and /etc are closed to it.",
    "ProtectSystem=full",
)


class Place(Struct, frozen=True):
    """Where a manager of systemd's keeps what: `system` is the machine's, else it is one user's."""

    system: bool
    units: Path
    environments: Path
    data: Path
    """The broker's own folder."""
    runtime: Path
    """Where it may make sockets."""


def service_unit(service: Service, place: Place, environment_file: Path, sockets: bool) -> str:
    """Raises `ConfigError` for what the service could not do under this unit."""
    broker = service.command == "broker"
    if broker:
        _check_broker(service, place, sockets)
    socket_unit_name = f"{service.unit}.socket"
    network = ("network-online.target",) if place.system else ()
    before = [*network, *([socket_unit_name] if sockets else [])]
    return _sections(
        Unit=[
            f"Description={service.kind.title}{service.name.removeprefix(service.command).replace('-', ' ', 1)}",
            *_assign("Wants", network),
            *_assign("Requires", [socket_unit_name] if sockets else []),
            *_assign("After", before),
            "# A service that work waits for is never given up.",
            "StartLimitIntervalSec=0",
        ],
        Service=[
            *(["Type=notify", "NotifyAccess=main", "WatchdogSec=30"] if service.kind.tells_ready else ["Type=exec"]),
            f"EnvironmentFile={_specifiers(str(check_path('the environment file', environment_file)))}",
            *_folder(service),
            f"ExecStart={' '.join(quoted(word) for word in (*service.program, service.command))} $PENSTOCK_OPTIONS",
            "ExecReload=kill -HUP $MAINPID",
            "Restart=always",
            f"RestartSec={1 if broker else 5}",
            "# TERM goes to the main process only; it tells its children.",
            "KillMode=mixed",
            f"TimeoutStopSec={service.kind.stop_timeout}",
            *(["LimitNOFILE=65536"] if broker else []),
            *_owner(service, place),
            *_hardening(broker, place),
        ],
        Install=[f"WantedBy={'multi-user.target' if place.system else 'default.target'}"],
    )


def socket_unit(service: Service) -> str:
    """The sockets of BIND, opened by systemd: clients wait, and are not refused, while the broker is started anew.

    Raises `ConfigError` for an address that systemd cannot open.
    """
    return _sections(
        Unit=[f"Description=Sockets of {service.unit}"],
        Socket=[
            *(f"ListenStream={_specifiers(listen_stream(bind))}" for bind in binds_of(service)),
            "RemoveOnStop=yes",
        ],
        Install=["WantedBy=sockets.target"],
    )


def binds_of(service: Service) -> list[str]:
    return service.environment.get(BIND, "").split()


def listen_stream(text: str) -> str:
    """ "127.0.0.1:7419" of "tcp://127.0.0.1:7419", the path of "unix:///path"."""
    bind = parse_bind(text)
    if bind.path:
        return str(check_path(f"{BIND}: the path of {text!r}", Path(bind.path)))
    try:
        ipaddress.ip_address(bind.host)
    except ValueError as error:
        raise ConfigError(
            f"{BIND}: systemd opens no names, as in {text!r}: write its address, e.g. tcp://127.0.0.1:7419"
        ) from error
    return str(bind).removeprefix("tcp://")


def quoted(word: str) -> str:
    """A word of ExecStart that systemd takes literally."""
    text = _specifiers(word).replace("$", "$$")
    return text if _SAFE.match(word) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _check_broker(service: Service, place: Place, sockets: bool) -> None:
    data = check_path(DATA, Path(service.environment[DATA]))
    if not place.system:
        return
    if data != place.data and service.user is None:
        raise ConfigError(
            f"{DATA}={data}: without --as USER the broker has a user of its own that owns nothing but {place.data}; "
            "say who owns your folder, with --as"
        )
    writable = (data, place.runtime)
    for bind in map(parse_bind, binds_of(service)):
        if bind.path and not sockets and not any(Path(bind.path).is_relative_to(one) for one in writable):
            raise ConfigError(
                f"{BIND}: the broker may not make {bind}: use unix://{place.runtime}/penstock.sock, or --socket, "
                "with which systemd makes it"
            )


def _folder(service: Service) -> list[str]:
    return [] if service.folder is None else [f"WorkingDirectory={_specifiers(str(service.folder))}"]


def _owner(service: Service, place: Place) -> list[str]:
    """Whom it runs as, and what that user owns."""
    if not place.system:
        return []
    user = [f"User={service.user}"] if service.user is not None else ["DynamicUser=yes"]
    if service.command != "broker":
        return user
    data = Path(service.environment[DATA])
    own = ["StateDirectoryMode=0700", f"StateDirectory={service.unit}"]
    return [
        *user,
        *(own if data == place.data else [f"ReadWritePaths={quoted(str(data))}"]),
        f"RuntimeDirectory={service.unit}",
    ]


def _hardening(broker: bool, place: Place) -> Sequence[str]:
    if not place.system:  # the rest needs rights that a user's manager does not have
        return OF_ALL
    return (*OF_ALL, *OF_SYSTEM, *(OF_BROKER if broker else OF_WORKER))


def _assign(name: str, values: Sequence[str]) -> list[str]:
    return [f"{name}={' '.join(values)}"] if values else []


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _sections(**sections: list[str]) -> str:
    return MARK + "\n" + "".join(f"\n[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
