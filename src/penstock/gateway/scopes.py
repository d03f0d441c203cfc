"""What a caller may do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.message import MAX_NAME
from penstock.spelling import hint

CALL, READ, REVOKE, INSPECT, METRICS = "call", "read", "revoke", "inspect", "metrics"
PLAIN = (READ, REVOKE, INSPECT, METRICS)


class Scopes(Struct, frozen=True):
    """`calls` are names or globs of tasks; `others` are of `PLAIN`: read a task by its id, revoke one, see queues and
    tracebacks, scrape metrics."""

    calls: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()

    def may_call(self, task: str) -> bool:
        return len(task) <= MAX_NAME and any(fnmatchcase(task, pattern) for pattern in self.calls)

    def may(self, scope: str) -> bool:
        return scope in self.others

    def texts(self) -> list[str]:
        return [*(f"{CALL}:{pattern}" for pattern in self.calls), *(one for one in PLAIN if one in self.others)]


EVERYTHING = Scopes(("*",), frozenset(PLAIN))


class Caller(Struct, frozen=True):
    """Who asks. Its share of the gateway, and its idempotency keys, are by `name`."""

    name: str
    scopes: Scopes


def read_scopes(texts: Iterable[str]) -> Scopes:
    """Of `call:reports.*`, `read`, `revoke`, `inspect`, `metrics`. Raises `ConfigError`."""
    calls: dict[str, None] = {}
    others: set[str] = set()
    for text in texts:
        kind, colon, pattern = text.partition(":")
        if kind == CALL and pattern:
            if len(pattern) > MAX_NAME or not pattern.isprintable():
                raise ConfigError(
                    f"scope {text[:60]!r}: a task's name or glob has up to {MAX_NAME} printable characters"
                )
            calls[pattern] = None
        elif kind in PLAIN and not colon:
            others.add(kind)
        else:
            remedy = "; write call:NAME, or call:'GLOB'" if kind == CALL else hint(text[:60], ("call:NAME", *PLAIN))
            raise ConfigError(f"unknown scope {text[:60]!r}{remedy}")
    return Scopes(tuple(calls), frozenset(others))
