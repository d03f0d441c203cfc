"""What a PostgreSQL engine is opened with: the URL's options over the app's settings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from penstock.engines.network.address import Address, parse_address
from penstock.errors import ConfigError
from penstock.queue import Queue

PORT = 5432
OPTIONS = ("schema", "durability", "sslmode", "read", "timeout")
LEVELS = ("power", "process", "strict")
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


class Settings(Struct, frozen=True):
    """`durability`: "power", "process" (commits are not flushed), or "strict" (power, and refused where the server does
    not keep it). `timeout` in seconds, of one try to connect. `replica`: listings and finished results may be read from
    a standby."""

    address: Address
    schema: str = "penstock"
    durability: str = "power"
    sslmode: str = "prefer"
    replica: bool = False
    timeout: float = 5.0
    queues: tuple[Queue, ...] = ()
    result_expires: float = 86_400.0
    result_max_bytes: int = 1 << 30
    declared_in: str = ""

    @property
    def database(self) -> str:
        return self.address.path or self.address.user or "postgres"

    @property
    def public(self) -> str:
        return self.address.public


def read_settings(
    url: str,
    *,
    queues: Sequence[Queue],
    durability: str,
    result_expires: float,
    result_max_bytes: int,
    namespace: str = "",
) -> Settings:
    """Raises `ConfigError`, which never shows the password."""
    address = parse_address(url, port=PORT, options=OPTIONS)
    chosen = address.options
    schema = chosen.get("schema", "penstock")
    if not _SCHEMA.match(schema):
        raise ConfigError(f"{address.public}: schema {schema!r} must be lower-case letters, digits and underscores")
    level = chosen.get("durability", durability)
    _check(address, "durability", level, LEVELS)
    sslmode = chosen.get("sslmode", "prefer")
    _check(address, "sslmode", sslmode, MODES)
    read = chosen.get("read", "primary")
    _check(address, "read", read, ("primary", "replica"))
    try:
        timeout = float(chosen.get("timeout", "5"))
    except ValueError:
        timeout = 0.0
    if not timeout > 0:
        raise ConfigError(f"{address.public}: timeout must be seconds above 0, not {chosen.get('timeout')!r}")
    return Settings(
        address,
        schema,
        level,
        sslmode,
        read == "replica",
        timeout,
        tuple(queues),
        result_expires,
        result_max_bytes,
        namespace,
    )


def _check(address: Address, option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{address.public}: {option} must be one of {', '.join(known)}, not {value!r}")
