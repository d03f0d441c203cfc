"""Names as parts of keys, and ids of tasks. A name from outside is escaped, so that no two names can meet."""

from __future__ import annotations

import base64
import os
from urllib.parse import quote, unquote

from penstock.errors import ConfigError

MAX_ID = 512
"""Bytes of a task's id."""
IDS_OF_A_PREFIX = 1 << 20
CACHED = 10_000


def escaped(name: str) -> str:
    """Without slashes, spaces, and whatever else separates."""
    return quote(name, safe="", errors="surrogatepass")


def queue_key(namespace: str, queue: str) -> str:
    return f"{escaped(namespace)}/{escaped(queue)}"


def queue_names(key: bytes) -> tuple[str, str]:
    """(namespace, queue) of a queue's key, or of a lane's."""
    namespace, queue, *_ = key.decode().split("/")
    return unquote(namespace, errors="surrogatepass"), unquote(queue, errors="surrogatepass")


class Lanes:
    """The keys of lanes, kept because each message needs one."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, str], bytes] = {}

    def key(self, namespace: str, queue: str, priority: int, partition: str) -> bytes:
        names = (namespace, queue, priority, partition)
        known = self._known.get(names)
        if known is None:
            if len(self._known) >= CACHED:
                self._known.clear()
            known = f"{queue_key(namespace, queue)}/{priority}/{escaped(partition)}".encode()
            self._known[names] = known
        return known


class Mint:
    """Ids that nobody can guess who has seen none of this process: 128 random bits and a count.

    31 characters: the server's Lua hashes every character of strings that are no longer."""

    def __init__(self) -> None:
        self._prefix, self._next = "", IDS_OF_A_PREFIX

    def __call__(self) -> str:
        number = self._next
        if number >= IDS_OF_A_PREFIX:
            self._prefix, number = random_name(), 0
        self._next = number + 1
        return f"{self._prefix}{number:05x}"


def random_name() -> str:
    """128 random bits in 26 characters."""
    return base64.b32encode(os.urandom(16)).decode().rstrip("=").lower()


def check_id(task_id: str) -> None:
    """Raise `ConfigError` for an id that no key may have."""
    try:
        size = len(task_id.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"task id {task_id!r} is not valid text") from None
    if not 0 < size <= MAX_ID:
        raise ConfigError(f"a task id has 1 to {MAX_ID} bytes, not {size:,}")
