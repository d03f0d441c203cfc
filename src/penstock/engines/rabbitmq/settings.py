"""What a RabbitMQ engine is opened with."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Literal, get_args

from msgspec import Struct

from penstock.clock import Clock, SystemClock
from penstock.engines.network.address import Address, parse_address
from penstock.engines.rabbitmq.connection import Login
from penstock.errors import ConfigError
from penstock.queue import Bounds, Queue

PLAIN_PORT, TLS_PORT = 5672, 5671
TLS = ("amqps", "rpcs")
"""Schemes that speak TLS; the app makes `rpcs` of `rpc://` beside an `amqps` broker."""
RESULT_EXPIRES, RESULT_BYTES = 86_400.0, 256 << 20
HARD_LENGTH, HARD_BYTES = 10_000_000, 8 << 30
"""Where the server itself refuses more, retries and follow-ups included: far above every declared bound."""

ExchangeType = Literal["direct", "topic", "fanout"]
Durability = Literal["power", "process", "strict"]
OPTIONS = (
    "declare",
    "exchange",
    "exchange_type",
    "heartbeat",
    "connect_timeout",
    "members",
    "durability",
    "ca",
    "cert",
    "key",
)


class Settings(Struct, frozen=True):
    """`passive`: the queues of tasks are used as they are; what retries and dead letters need is declared beside them.
    `exchange`: what tasks of normal priority are published to, with the queue's name as routing key. `members`: nodes
    that keep each new queue. `connect_timeout` in seconds. `replies`: open for results only. `bounds`:
    those of queues that change."""

    address: Address
    login: Login
    clock: Clock
    queues: tuple[Queue, ...] = ()
    passive: bool = False
    exchange: str = ""
    exchange_type: ExchangeType = "direct"
    members: int | None = None
    durability: Durability = "power"
    connect_timeout: float = 10.0
    result_expires: float = RESULT_EXPIRES
    result_max_bytes: int = RESULT_BYTES
    replies: bool = False
    bounds: Bounds | None = None


def read_settings(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    durability: str | None = None,
    result_expires: float = RESULT_EXPIRES,
    result_max_bytes: int = RESULT_BYTES,
    bounds: Bounds | None = None,
) -> Settings:
    """The settings in `url` over those given. Raises `ConfigError`."""
    scheme = url.partition("://")[0]
    address = parse_address(url, port=TLS_PORT if scheme in TLS else PLAIN_PORT, options=OPTIONS)
    options = address.options
    declare = _one_of(address, "declare", ("active", "passive"), "active")
    exchange_type = _one_of(address, "exchange_type", get_args(ExchangeType), "direct")
    chosen = _one_of(address, "durability", get_args(Durability), durability or "power")
    login = Login(
        url=address.public,
        user=address.user or "guest",
        password=address.password if address.password is not None else "guest",
        virtual_host=address.path or "/",
        heartbeat=int(_number(address, "heartbeat", 0)),
        name=f"penstock {socket.gethostname()}",
        tls=_tls(address) if scheme in TLS else None,
    )
    return Settings(
        address=address,
        login=login,
        clock=clock or SystemClock(),
        queues=tuple(queues),
        passive=declare == "passive",
        exchange=options.get("exchange", ""),
        exchange_type=exchange_type,  # type: ignore[arg-type]  # one of its values, as was just checked
        members=int(_number(address, "members", 0)) or None,
        durability=chosen,  # type: ignore[arg-type]  # the same
        connect_timeout=_number(address, "connect_timeout", 10.0),
        result_expires=result_expires,
        result_max_bytes=result_max_bytes,
        replies=scheme in ("rpc", "rpcs"),
        bounds=bounds,
    )


def _one_of(address: Address, option: str, known: Sequence[str], default: str) -> str:
    value = address.options.get(option, default)
    if value not in known:
        raise ConfigError(f"{address.public}: {option} must be {' or '.join(known)}, not {value!r}")
    return value


def _number(address: Address, option: str, default: float) -> float:
    text = address.options.get(option)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise ConfigError(f"{address.public}: {option} must be a number, not {text!r}")
    return value


def _tls(address: Address) -> ssl.SSLContext:
    """Verified, always: by the system's authorities, or by those in the file `ca`."""
    options = address.options
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{address.public}: the files of ca, cert or key cannot be used: {error}") from error
    return context
