"""One `penstock broker`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.protocol.frames import frame
from penstock.protocol.requests import Hello
from penstock.server.access.book import Book
from penstock.server.access.passwords import Passwords
from penstock.server.access.rights import Permission
from tests.servers.process import Server, free_port, running

USER, PASSWORD = "worker", "correct horse battery"


@contextmanager
def broker_server(directory: Path, *options: str, durability: str = "power") -> Iterator[Server]:
    """A broker that survives `SIGKILL`, with one user who may do everything; further `options` as on its command
    line."""
    yield from running(broker(directory, *options, durability=durability))


def broker(directory: Path, *options: str, durability: str = "power", port: int | None = None) -> Server:
    """The same, not started."""
    port = port or free_port()
    data = directory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    permit(data, USER, PASSWORD, Permission("*", ".*", ".*", ".*"), tags=["administrator"])
    argv = [sys.executable, "-m", "penstock.cli", "broker", "--data", str(data), "--bind", f"tcp://127.0.0.1:{port}"]
    argv += ["--durability", durability, *options]
    url = f"penstock://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/"
    # A version that there is not: the refusal tells that it is up, and no password is looked at.
    return Server(url, port, argv, directory / "broker.log", frame(Hello(999, 999, "test")), b"\0")


def permit(data: Path, user: str, password: str, *permissions: Permission, tags: Sequence[str] = ()) -> None:
    """Make a user, as the owner of the files."""
    book = Book(data)
    try:
        if user not in book.snapshot.users:
            book.add_user(user, Passwords().hash(password), tags)
        for permission in permissions:
            if permission.namespace not in (*book.snapshot.namespaces, "*"):
                book.add_namespace(permission.namespace)
            book.permit(user, permission)
    finally:
        book.close()
