"""One Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import Server, free_port, program, running


@contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[Server]:
    """A Redis that survives `SIGKILL`; further `options` as on its command line."""
    port = free_port()
    argv = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    argv += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *options]
    url = f"redis://127.0.0.1:{port}/0"
    yield from running(Server(url, port, argv, directory / "redis.log", b"PING\r\n", b"+PONG"))
