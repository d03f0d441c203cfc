"""The engine behind `penstock://`: a client of `penstock broker`. See docs/engines/penstock.md and docs/protocol.md."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.clock import Clock
from penstock.engines.server.engine import ServerEngine
from penstock.engines.server.settings import read_settings
from penstock.queue import Queue

__all__ = ["ServerEngine", "open_engine"]


def open_engine(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    namespace: str = "",
    durability: str | None = None,
) -> ServerEngine:
    """Connect to a broker: `penstock://user:password@host:7419/namespace`, `penstocks://` with TLS. Without a path the
    namespace is `/`. A token is given in the place of the password.

    Options in the URL: `socket`, the path of a Unix socket, instead of a host; `timeout`: seconds of silence after
    which the broker counts as gone (5); with TLS `ca`, a file with the authority of its certificate, and `cert` and
    `key`, files with the client's own; `client`: the address of whom a gateway signs in for.

    `queues` are declared, in the app's own `namespace`. The broker's clock counts, not `clock`, and its durability:
    "strict" refuses a broker that does not survive a power cut, "power" warns of it. Raises `ConfigError`,
    `AccessRefused`, `BrokerUnavailable`."""
    return ServerEngine(read_settings(url, queues=queues, namespace=namespace, durability=durability))
