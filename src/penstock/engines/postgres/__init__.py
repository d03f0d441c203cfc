"""The PostgreSQL engine: `postgresql://user:password@host:5432,other:5432/database`. See docs/engines.md."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.clock import Clock
from penstock.engine import Engine
from penstock.engines.postgres.engine import PostgresEngine
from penstock.engines.postgres.settings import read_settings
from penstock.queue import Queue


def open_engine(
    url: str,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    namespace: str = "",
    durability: str = "power",
    result_expires: float = 86_400.0,
    result_max_bytes: int = 1 << 30,
) -> Engine:
    """Connect to the primary among the hosts of `url`, and make the schema if it is missing.

    Options of the URL: `schema`, `durability`, `sslmode`, `read`, `timeout` (see `Settings`). `clock` is not used: the
    server's counts. Raises `ConfigError` for a bad URL, login or database, `StoreError` for a schema that cannot be
    used, `BrokerUnavailable` when no primary is reached.
    """
    return PostgresEngine(
        read_settings(
            url,
            queues=queues,
            namespace=namespace,
            durability=durability,
            result_expires=result_expires,
            result_max_bytes=result_max_bytes,
        )
    )
