"""Administrative commands of clients: those on users go to the book, those on the broker itself are here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.errors import ConfigError
from penstock.server.access import commands
from penstock.server.access.rights import ADMINISTRATOR, MONITORING
from penstock.server.backup import backup, named
from penstock.server.session import ClientSession
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.server.broker import Broker

log = logging.getLogger("penstock.broker")


async def administer(broker: Broker, session: ClientSession, command: str, arguments: bytes) -> bytes:
    """The answer, as JSON. Raises `ConfigError`, `AccessRefused`."""
    try:
        given = msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the arguments of {command[:40]!r} are no JSON object: {error}") from error
    own = OWN.get(command)
    if own is not None:
        answer: object = await own(broker, session, given)
    elif command.startswith("broker "):
        raise ConfigError(f"unknown command {command[:40]!r}{hint(command[:40], OWN)}")
    else:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(None, commands.run, broker.book, command, given, session.identity)
    return msgspec.json.encode(answer)


async def _status(broker: Broker, session: ClientSession, given: Mapping[str, Any]) -> object:
    if not session.identity.monitors:
        raise session.identity.untagged(MONITORING, "broker status")
    return broker.sight.status()


async def _set(broker: Broker, session: ClientSession, given: Mapping[str, Any]) -> object:
    if not session.identity.administrator:
        raise session.identity.untagged(ADMINISTRATOR, "broker set")
    broker.change(given)
    log.warning("%s changed %s", session, dict(given))
    return broker.hot()


async def _backup(broker: Broker, session: ClientSession, given: Mapping[str, Any]) -> object:
    if not session.identity.administrator:
        raise session.identity.untagged(ADMINISTRATOR, "broker backup")
    target = named(broker.settings.data, str(given.get("name", "")))
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(None, backup, broker.settings.data, target)
    log.info("%s had a backup made: %s", session, target)
    return {"folder": str(target), "databases": found}


Own = Callable[["Broker", ClientSession, Mapping[str, Any]], Coroutine[Any, Any, object]]
OWN: Mapping[str, Own] = MappingProxyType({"broker status": _status, "broker set": _set, "broker backup": _backup})
