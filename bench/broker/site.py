"""A broker of our own for one measure, on a private folder and port."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.place import DURABILITY, EXPIRES, URL, Place, copy
from tests.servers.broker_node import broker
from tests.servers.process import Server, running


@contextmanager
def site(place: Place, durability: str, source: Path | None = None) -> Iterator[Server]:
    """A broker, on a copy of the database `source` if one is given."""
    with place.private() as folder:
        server = broker(folder, "--loglevel", "WARNING", durability=durability)
        if source is not None:
            copy(source, folder / "data" / "queue.db")
        yield from running(server)


def environment(server: Server, durability: str) -> dict[str, str]:
    """The environment in which `bench.tasks` makes its app."""
    return {**os.environ, URL: server.url, DURABILITY: durability, EXPIRES: "86400"}


def queue_file(server: Server) -> Path:
    return server.log.parent / "data" / "queue.db"
