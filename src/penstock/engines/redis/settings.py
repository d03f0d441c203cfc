"""What a Redis engine is opened with: the URL, and what the app says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import quote

from penstock.engines.network.address import Address, parse_address
from penstock.errors import ConfigError
from penstock.queue import Queue

Durability = Literal["power", "process", "strict"]
PORT, SENTINEL_PORT = 6379, 26379
OPTIONS = (
    "ca",
    "db",
    "durability",
    "prefix",
    "read",
    "sentinel_password",
    "sentinel_user",
    "timeout",
    "wait",
    "wait_timeout",
)


@dataclass(frozen=True)
class Settings:
    """`timeout`: seconds of silence after which a server counts as dead. `wait`: replicas that must have what is
    acknowledged, within `wait_timeout` seconds. `master`: its name among the Sentinels that `address.hosts` are.
    `durability`: "strict" refuses a server that does not keep what it accepted through a power cut, the others warn of
    it ("process": only of one that loses it when it crashes)."""

    address: Address
    public: str
    database: int
    prefix: str
    socket: str | None = None
    master: str | None = None
    tls: bool = False
    ca: str | None = None
    sentinel_login: tuple[str | None, str | None] = field(default=(None, None), repr=False)
    durability: str = "power"
    read_replica: bool = False
    timeout: float = 5.0
    wait: int = 0
    wait_timeout: float = 1.0
    queues: tuple[Queue, ...] = ()
    declared_in: str = ""
    result_expires: float = 86_400.0
    result_max_bytes: int = 1 << 30

    @property
    def fails_over(self) -> bool:
        """Another host may become the leader any moment."""
        return self.master is not None or len(self.address.hosts) > 1

    @property
    def weakness(self) -> str:
        """What a failover can lose by what the URL says, and how to fix it."""
        if not self.fails_over or self.wait:
            return ""
        return (
            "a failover can lose what was accepted and is not on the new leader yet (replication is asynchronous): "
            "put ?wait=1 into the URL, and min-replicas-to-write 1 into redis.conf"
        )

    @property
    def scope(self) -> str:
        """What tells this store from others."""
        return f"{self.public}#{self.prefix}"


def read_settings(
    url: str,
    *,
    queues: Sequence[Queue] = (),
    namespace: str = "",
    durability: str | None = None,
    result_expires: float = 86_400.0,
    result_max_bytes: int = 1 << 30,
) -> Settings:
    """The settings in `url` over those given. Raises `ConfigError`, which never shows the password."""
    scheme = url.partition(":")[0]
    address = parse_address(url, port=SENTINEL_PORT if scheme == "sentinel" else PORT, options=OPTIONS)
    public = _public(address)
    options = address.options
    path, socket, master = address.path, None, None
    if scheme == "unix":
        socket, path = "/" + path.lstrip("/"), ""
    elif scheme == "sentinel":
        master, _, path = path.partition("/")
        if not master:
            raise ConfigError(f"{public}: name the master: sentinel://host:26379,host2:26379/mymaster")
    return Settings(
        address=address,
        public=public,
        database=_whole(public, "database", options.get("db", path) or "0", 0),
        prefix=_prefix(public, options.get("prefix", "penstock")),
        socket=socket,
        master=master,
        tls=scheme == "rediss",
        ca=_file(public, options.get("ca")),
        sentinel_login=(options.get("sentinel_user"), options.get("sentinel_password")),
        durability=_one_of(
            public, "durability", options.get("durability", durability or "power"), get_args(Durability)
        ),
        read_replica=_one_of(public, "read", options.get("read", "leader"), ("leader", "replica")) == "replica",
        timeout=_positive(public, "timeout", options, 5.0),
        wait=_whole(public, "wait", options.get("wait", "0"), 0),
        wait_timeout=_positive(public, "wait_timeout", options, 1.0),
        queues=tuple(queues),
        declared_in=namespace,
        result_expires=result_expires,
        result_max_bytes=result_max_bytes,
    )


def _public(address: Address) -> str:
    if address.scheme != "unix":
        return address.public
    user = f"{quote(address.user, safe='')}@" if address.user else ""
    return f"unix://{user}/{address.path.lstrip('/')}"


def _whole(public: str, name: str, value: str, least: int) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) < least:
        raise ConfigError(f"{public}: {name} must be a whole number, at least {least}, not {value!r}")
    return int(value)


def _positive(public: str, name: str, options: Mapping[str, str], default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise ConfigError(f"{public}: {name} must be a number of seconds above 0, not {options[name]!r}")
    return value


def _one_of(public: str, name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigError(f"{public}: {name} must be one of {', '.join(known)}, not {value!r}")
    return value


def _prefix(public: str, name: str) -> str:
    """In a hash tag, so that all keys live in one slot."""
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or not name.isascii():
        raise ConfigError(f"{public}: prefix must be letters, digits, '-', '_' and '.', not {name!r}")
    return "{" + name + "}"


def _file(public: str, path: str | None) -> str | None:
    if path is not None and not os.path.isfile(path):
        raise ConfigError(f"{public}: ca={path!r} is not a file")
    return path
