"""Where a contender runs: a server of ours on loopback, with the same settings for all who are compared on it."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from bench.engines import commands
from bench.place import Place
from tests.servers import rabbitmq_server, redis_server
from tests.servers.postgres_node import init_database, postgres_process, postgres_program, unprivileged
from tests.servers.process import Server, free_port, program

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "redis": "appendonly yes, appendfsync everysec",
        "rabbitmq": "durable queues, persistent messages, confirmed publishes; queue types as named",
        "postgres": "fsync on, synchronous_commit on, shared_buffers 1 GB, max_wal_size 4 GB",
    }
)
"""What is set; all else is the server's default."""


class Site(Struct, frozen=True):
    """An empty place on a running server, whose process is `pid`. `commands(seconds)`: how many came in so long."""

    url: str
    pid: int
    commands: Callable[[float], int]


Sites = Callable[[], AbstractContextManager[Site]]


@contextmanager
def redis_sites(place: Place) -> Iterator[Sites]:
    """A new server for each: its append-only file grows with what others did."""

    @contextmanager
    def site() -> Iterator[Site]:
        with place.private() as folder, redis_server(folder, "--appendfsync", "everysec") as server:
            yield Site(server.url, _pid(server), partial(commands.redis, server.port))

    yield site


@contextmanager
def rabbitmq_sites(place: Place) -> Iterator[Sites]:
    """One server; the contenders' queues have different names, and are empty after each."""
    with place.private() as folder, rabbitmq_server(folder) as server:

        @contextmanager
        def site() -> Iterator[Site]:
            yield Site(server.url, _pid(server), partial(commands.rabbitmq, server.port))

        yield site


@contextmanager
def postgres_sites(place: Place) -> Iterator[Sites]:
    """One server; a new database for each."""
    options = ("-c", "shared_buffers=1GB", "-c", "max_wal_size=4GB")
    numbers = itertools.count()
    with place.private() as folder:
        if os.geteuid() == 0:
            place.folder.chmod(0o711)
            os.chown(folder, unprivileged().pw_uid, -1)
        init_database(folder / "data")
        server = postgres_process(folder / "data", folder / "postgres.log", free_port(), *options)
        server.start()

        @contextmanager
        def site() -> Iterator[Site]:
            name = f"bench{next(numbers)}"
            owner = urlsplit(server.url).username
            asyncio.run(_administer(server.admin_url, f"CREATE DATABASE {name} OWNER {owner}", "CHECKPOINT"))
            url = urlsplit(server.url)._replace(path=f"/{name}").geturl()
            yield Site(url, _pid(server), partial(commands.postgres, server.admin_url, server.log))
            asyncio.run(_administer(server.admin_url, f"DROP DATABASE {name} WITH (FORCE)"))

        try:
            yield site
        finally:
            server.stop()


SERVERS: Mapping[str, Callable[[Place], AbstractContextManager[Sites]]] = MappingProxyType(
    {"redis": redis_sites, "rabbitmq": rabbitmq_sites, "postgres": postgres_sites}
)


async def _administer(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def _pid(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def version(name: str) -> str:
    """As the server's program tells it."""
    if name == "rabbitmq":
        folders = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
        return next((folder.name.partition("-")[2] for folder in folders), "unknown")
    path = program("redis-server") if name == "redis" else postgres_program("postgres")
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", told)
    return found[0] if found else told.strip()
