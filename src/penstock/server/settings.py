"""What a broker is started with, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.loopback import is_loopback
from penstock.metrics.place import Place
from penstock.protocol import PORT

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]/]*)(?::(?P<port>\d+))?/?\Z")


class Bind(Struct, frozen=True):
    """Where to listen: a host and port, or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix://{self.path}" if self.path else f"tcp://{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Only this machine reaches it."""
        return bool(self.path) or is_loopback(self.host)


class Tls(Struct, frozen=True):
    """Files in PEM. With `client_ca` every client must show a certificate of that authority."""

    certificate: str
    key: str
    client_ca: str | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises `ConfigError`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.certificate, self.key, self.client_ca) if name)
            raise ConfigError(f"the certificate cannot be used ({error}): check {files}") from error
        return context


class BrokerSettings(Struct, frozen=True, kw_only=True):
    """`data` is the folder of everything. `heartbeat`: seconds of silence after which a client is asked whether it is
    there. `slow`: seconds from which on an operation is logged. `grace`: seconds that a stopping broker gives to what
    it has begun. `gateways`: addresses that are believed when they say for whom they sign in; "local" is whoever comes
    by a Unix socket."""

    data: Path
    binds: tuple[Bind, ...] = (Bind("127.0.0.1", PORT),)
    tls: Tls | None = None
    allow_plain: bool = False
    """Listen without TLS where others than this machine can reach it."""
    durability: Literal["power", "process"] = "power"
    heartbeat: float = 10.0
    max_connections: int = 20_000
    slow: float = 0.1
    grace: float = 10.0
    result_expires: float = 86_400.0
    result_max_bytes: int = 1 << 30
    gateways: tuple[str, ...] = ()
    metrics: Place | None = None
    """Where to serve metrics."""

    def check(self) -> None:
        """Raise `ConfigError` for what must not be."""
        if not self.binds:
            raise ConfigError("nothing to listen on: give --bind tcp://127.0.0.1:7419, or unix:///path/to.sock")
        for bind in self.binds:
            self.check_bind(bind)
        for name, least, most in (("heartbeat", 1.0, 3600.0), ("slow", 0.0, 3600.0), ("grace", 0.0, 3600.0)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} must be between {least:g} and {most:g} seconds, not {value!r}")
        for gateway in self.gateways:
            if gateway != "local" and not _is_address(gateway):
                raise ConfigError(f"--gateway {gateway!r}: write the IP address that it comes from, or local")
        if self.max_connections < 1:
            raise ConfigError(f"max_connections must be at least 1, not {self.max_connections!r}")

    def check_bind(self, bind: Bind) -> None:
        """Raise `ConfigError` where passwords could be read on their way."""
        if self.tls is None and not bind.local and not self.allow_plain:
            raise ConfigError(
                f"{bind} can be reached by others, and passwords would cross the network readable: give --tls-cert "
                "and --tls-key, bind to 127.0.0.1, or say --allow-plain where something else encrypts"
            )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_bind(text: str) -> Bind:
    """`tcp://host:port` (without a port: 7419) or `unix:///path`. Raises `ConfigError`."""
    scheme, mark, rest = text.partition("://")
    if mark and scheme == "unix" and rest.startswith("/"):
        return Bind(path=os.path.normpath(unquote(rest)))
    found = _TCP.match(rest) if mark and scheme == "tcp" else None
    if found is None or not found["host"] or not int(found["port"] or PORT) < 65536:
        raise ConfigError(
            f"--bind {text!r}: write tcp://host:port, e.g. tcp://127.0.0.1:{PORT}, or unix:///path/to.sock"
        )
    return Bind(found["host"].strip("[]"), int(found["port"] or PORT))


def bind_of(listener: socket.socket) -> Bind:
    """Where a socket listens that was opened by somebody else."""
    if listener.family == socket.AF_UNIX:
        return Bind(path=str(listener.getsockname()))
    host, port = listener.getsockname()[:2]
    return Bind(host, port)
