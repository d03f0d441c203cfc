"""The first words with a server: who we are, what it is, and what it promises."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import hiredis
from msgspec import Struct

from penstock.engines.redis.faults import NotNow, code_of
from penstock.engines.redis.settings import Settings
from penstock.engines.redis.wire import Push, Wire, checked
from penstock.errors import ConfigError, StoreError

OLDEST = (6, 2)


class Server(Struct, frozen=True):
    """A server as it described itself. `durability` is as in `Features`, `None` where it does not tell."""

    version: tuple[int, ...]
    role: str
    durability: str | None
    weakness: str = ""
    """What can be lost, and how to fix it."""


async def dial(settings: Settings, host: str, port: int, push: Push | None = None) -> Wire:
    """A connection that is signed in, on the right database. Raises `OSError`, `Broken`, `ReplyError`."""
    loop = asyncio.get_running_loop()
    if settings.socket is not None:
        _, wire = await loop.create_unix_connection(lambda: Wire(push), settings.socket)
    else:
        _, wire = await loop.create_connection(lambda: Wire(push), host, port, ssl=_tls(settings))
    try:
        await _sign_in(wire, settings.address.user, settings.address.password)
        if settings.database:
            await _select(wire, settings)
    except BaseException:
        wire.close()
        raise
    return wire


async def dial_sentinel(settings: Settings, host: str, port: int) -> Wire:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(min(settings.timeout, 2.0)):
        _, wire = await loop.create_connection(Wire, host, port)
        try:
            await _sign_in(wire, *settings.sentinel_login)
        except BaseException:
            wire.close()
            raise
    return wire


async def _sign_in(wire: Wire, user: str | None, password: str | None) -> None:
    if password is not None:
        await checked([wire.call("AUTH", *([user] if user else []), password)])


async def _select(wire: Wire, settings: Settings) -> None:
    answer = await wire.call("SELECT", settings.database)
    if isinstance(answer, hiredis.ReplyError):
        if code_of(answer) == "ERR":
            raise ConfigError(f"{settings.public}: there is no database {settings.database} ({answer})")
        raise answer


def _tls(settings: Settings) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=settings.ca) if settings.tls else None


async def role_of(wire: Wire) -> str:
    """ "master", "slave", or whatever it says."""
    (answer,) = await checked([wire.call("INFO", "replication")])
    return info(answer).get("role", "master")


async def examine(wire: Wire, settings: Settings) -> Server:
    """What the server is. Raises `ConfigError` for one that cannot be used, `NotNow` for one that still loads."""
    answers = await checked(
        [wire.call("INFO", part) for part in ("server", "replication", "persistence", "cluster", "memory")]
    )
    found: dict[str, str] = {}
    for answer in answers:
        found |= info(answer)
    if found.get("loading") == "1":
        raise NotNow("it still loads its data")
    version = tuple(int(part) for part in found.get("redis_version", "0").split(".")[:2])
    if version < OLDEST:
        raise StoreError(
            f"{settings.public}: this is version {found.get('redis_version')}, which lacks HRANDFIELD and ZADD GT: "
            f"upgrade it to {'.'.join(map(str, OLDEST))} or later"
        )
    if found.get("cluster_enabled") == "1":
        raise ConfigError(
            f"{settings.public}: this server is in cluster mode, where its replicas are not asked and databases are "
            "missing: use a server with cluster-enabled no, alone or with Sentinel (sentinel://)"
        )
    await _check_rights(wire, settings)
    role = found.get("role", "master")
    config = await _configuration(wire)
    policy = config.get("maxmemory-policy", found.get("maxmemory_policy", "noeviction"))
    limited = config.get("maxmemory", found.get("maxmemory", "0")) != "0"
    if policy != "noeviction" and (limited or "maxmemory-policy" in config):
        raise ConfigError(
            f"{settings.public}: maxmemory-policy is {policy}, so that it would delete tasks when its memory is full: "
            "set maxmemory-policy noeviction"
        )
    durability, weakness = judge(config, found)
    return Server(version, role, durability, weakness)


async def _check_rights(wire: Wire, settings: Settings) -> None:
    answer = await wire.call("EVAL", "return redis.call('EXISTS', KEYS[1])", 1, settings.prefix + ":m")
    if isinstance(answer, hiredis.ReplyError):
        if code_of(answer) == "NOPERM" or "unknown command" in str(answer):
            raise ConfigError(
                f"{settings.public}: this user may not run scripts on our keys: allow EVAL, EVALSHA, SCRIPT and the "
                f"keys and channels {settings.prefix}:* (ACL SETUSER … +@all ~{settings.prefix}* &{settings.prefix}*)"
            )
        raise answer


async def _configuration(wire: Wire) -> dict[str, str]:
    """Empty where the user may not read it, as on managed servers."""
    names = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
    config: dict[str, str] = {}
    for answer in [await answer for answer in [wire.call("CONFIG", "GET", name) for name in names]]:
        if isinstance(answer, list):
            config |= {answer[i].decode(): answer[i + 1].decode() for i in range(0, len(answer) - 1, 2)}
    return config


def judge(config: Mapping[str, str], found: Mapping[str, str]) -> tuple[str | None, str]:
    """The durability by its configuration, or by what INFO tells, and what is weak about it."""
    appends = config.get("appendonly", "yes" if found.get("aof_enabled") == "1" else "no") == "yes"
    if not appends:
        return "memory", (
            "it does not write what it accepts to disk: when it stops or crashes, all tasks and results since its last "
            "snapshot are lost. Add to its redis.conf: appendonly yes, and appendfsync always (or everysec)"
        )
    fsync = config.get("appendfsync")
    if fsync == "always":
        return "power", ""
    if fsync is None:
        return None, (
            "it does not tell its appendfsync (CONFIG is forbidden): what a power cut loses is not known. "
            "Check at its provider that it is always, or everysec"
        )
    lost = "the last second" if fsync == "everysec" else "the last half minute"
    return (
        "process",
        f"a power cut loses what it accepted in {lost} (appendfsync {fsync}); appendfsync always loses none",
    )


def info(answer: bytes) -> dict[str, str]:
    """The lines of INFO."""
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, mark, value in lines if mark}


def replicas(found: Mapping[str, str]) -> list[tuple[str, int]]:
    """Where the replicas are that follow this leader now, by its INFO."""
    lines = [
        dict(part.partition("=")[::2] for part in line.split(",")) for name, line in found.items() if is_replica(name)
    ]
    return [(one["ip"], int(one["port"])) for one in lines if one.get("state") == "online"]


def is_replica(name: str) -> bool:
    """Whether a line of INFO is about a replica: slave0, slave1…"""
    return name.startswith("slave") and name[5:].isdigit()
