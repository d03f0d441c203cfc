"""What an engine of a broker is opened with: the URL, and what the app says."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.engines.network.address import Address, parse_address
from penstock.errors import ConfigError
from penstock.protocol import PORT
from penstock.queue import Queue

OPTIONS = ("ca", "cert", "client", "durability", "key", "socket", "timeout")
DURABILITIES = ("power", "process", "strict")


@dataclass(frozen=True)
class Settings:
    """`timeout`: seconds of silence after which a broker from which something is awaited counts as gone. `client`: the
    address of whom a gateway signs in for."""

    address: Address
    public: str
    namespace: str
    socket: str | None
    tls: ssl.SSLContext | None = field(repr=False, default=None)
    timeout: float = 5.0
    durability: str | None = None
    queues: tuple[Queue, ...] = ()
    declared_in: str = ""
    """The app's own namespace, inside of that of the broker."""
    client: str = ""


def read_settings(
    url: str, *, queues: Sequence[Queue] = (), namespace: str = "", durability: str | None = None
) -> Settings:
    """The settings in `url` over those given. Raises `ConfigError`, which never shows the password."""
    address = parse_address(url, port=PORT, options=OPTIONS)
    options = address.options
    chosen = options.get("durability", durability)
    if chosen is not None and chosen not in DURABILITIES:
        raise ConfigError(f"{address.public}: durability must be one of {', '.join(DURABILITIES)}, not {chosen!r}")
    socket = options.get("socket")
    if address.scheme != "penstocks":
        _refuse_tls_options(address)
    public = address.public if socket is None else f"{address.public}?socket={socket}"
    return Settings(
        address=address,
        public=public,
        namespace=address.path or "/",
        socket=socket,
        tls=_tls(address) if address.scheme == "penstocks" else None,
        timeout=_seconds(address.public, options.get("timeout", "5")),
        durability=chosen,
        queues=tuple(queues),
        declared_in=namespace,
        client=options.get("client", ""),
    )


def _refuse_tls_options(address: Address) -> None:
    for name in ("ca", "cert", "key"):
        if name in address.options:
            raise ConfigError(f"{address.public}: {name} is for TLS: write penstocks://")


def _tls(address: Address) -> ssl.SSLContext:
    options = address.options
    for name in ("ca", "cert", "key"):
        if name in options and not os.path.isfile(options[name]):
            raise ConfigError(f"{address.public}: {name}={options[name]!r} is not a file")
    if ("cert" in options) != ("key" in options):
        raise ConfigError(f"{address.public}: cert and key go together")
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options["key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{address.public}: a certificate cannot be used: {error}") from error
    return context


def _seconds(public: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise ConfigError(f"{public}: timeout must be a number of seconds above 0, not {text!r}")
    return value
