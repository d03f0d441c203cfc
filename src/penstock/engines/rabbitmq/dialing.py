"""Several hosts, of which some may be frozen: the next is dialled while the one before has not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.engines.rabbitmq.connection import Connection, Login
from penstock.errors import BrokerUnavailable, ConfigError, PenstockError

STAGGER = 0.5
"""Seconds until the next host is dialled as well."""


async def open_first(login: Login, hosts: Sequence[tuple[str, int]], timeout: float) -> Connection:
    """The connection of the host that answers first; earlier ones have a lead. `timeout` is in seconds for each. Raises
    `ConfigError` at once, and why the last did not answer when none does."""
    left = list(hosts)
    dials: set[asyncio.Task[Connection]] = set()
    failure: PenstockError | None = None
    try:
        while left or dials:
            if left:
                dials.add(asyncio.create_task(Connection.open(login, *left.pop(0), timeout)))
            done, _ = await asyncio.wait(dials, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED)
            for dial in done:
                dials.discard(dial)  # those behind one that answered stay, to be ended below
                try:
                    return dial.result()
                except ConfigError:
                    raise
                except PenstockError as error:
                    failure = error
    finally:
        for dial in dials:
            dial.add_done_callback(_unused)
            dial.cancel()
    raise failure or BrokerUnavailable(f"{login.url}: no hosts")


def _unused(dial: asyncio.Task[Connection]) -> None:
    """Another was faster."""
    if not dial.cancelled() and dial.exception() is None:
        connection = dial.result()
        connection.abort(BrokerUnavailable(f"{connection.login.url}: another host answered first"))
