"""What the server promises to keep, asked when an engine is opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.settings import Settings
from penstock.errors import ConfigError

log = logging.getLogger("penstock.engine")

ASKED = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


async def check_durability(connection: Connection, settings: Settings) -> str:
    """What the server keeps, as in `Features.durability`. Warns of what can be lost, and how to fix it; raises
    `ConfigError` instead with `durability="strict"`."""
    if settings.durability == "process":
        return "process"  # as was asked for
    row = await connection.fetchrow("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in ASKED))
    server = dict(row)
    for text in weaknesses(server, len(settings.address.hosts)):
        if settings.durability == "strict":
            raise ConfigError(f'{settings.public}: durability="strict" is not kept: {text}')
        log.warning("%s: %s", settings.public, text)
    return kept(server)


def kept(server: Mapping[str, str]) -> str:
    """What survives with these settings, as in `Features.durability`."""
    flushed = server["fsync"] == server["full_page_writes"] == "on" and server["synchronous_commit"] != "off"
    return "power" if flushed else "process"


def weaknesses(server: Mapping[str, str], hosts: int) -> list[str]:
    """What can be lost with these settings, and how to fix it."""
    found = []
    if server["fsync"] != "on":
        found.append("fsync is off: a power cut can lose everything, or damage it; set fsync = on in postgresql.conf")
    if server["full_page_writes"] != "on":
        found.append(
            "full_page_writes is off: a power cut can damage tables, unless the file system never tears a page;"
            " set full_page_writes = on in postgresql.conf"
        )
    if server["synchronous_commit"] == "off":
        found.append(
            "synchronous_commit is off: a crash of the server loses the accepted tasks and results of about the last"
            " half second; set it to on, for the server, the database or this user"
        )
    elif hosts > 1 and (not server["synchronous_standby_names"] or server["synchronous_commit"] == "local"):
        found.append(
            "the URL names several hosts, but no standby is synchronous: a failover can lose accepted tasks; set"
            " synchronous_standby_names (for example 'ANY 1 (*)'), and synchronous_commit = on"
        )
    return found
