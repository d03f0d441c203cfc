"""What a caller may do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from msgspec import Struct

from penstock.app import Penstock
from penstock.errors import ConfigError
from penstock.message import MAX_NAME
from penstock.spelling import hint

CALL, QUEUE, READ, REVOKE, INSPECT, METRICS = "call", "queue", "read", "revoke", "inspect", "metrics"
NAMED = (CALL, QUEUE)
PLAIN = (READ, REVOKE, INSPECT, METRICS)


class Scopes(Struct, frozen=True):
    """`calls` are names or globs of tasks, `queues` of queues that a call may choose; `others` are of `PLAIN`: read a
    task by its id, revoke one, see queues and tracebacks, scrape metrics."""

    calls: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    queues: tuple[str, ...] = ()

    def may_call(self, task: str) -> bool:
        return fits(task, self.calls)

    def may_choose(self, queue: str) -> bool:
        return fits(queue, self.queues)

    def may(self, scope: str) -> bool:
        return scope in self.others

    def texts(self) -> list[str]:
        return [
            *(f"{CALL}:{pattern}" for pattern in self.calls),
            *(f"{QUEUE}:{pattern}" for pattern in self.queues),
            *(one for one in PLAIN if one in self.others),
        ]


def fits(name: str, patterns: Iterable[str]) -> bool:
    return len(name) <= MAX_NAME and any(fnmatchcase(name, pattern) for pattern in patterns)


def nothing() -> None:
    """What there is to do after most requests."""


EVERYTHING = Scopes(("*",), frozenset(PLAIN), ("*",))


class Caller(Struct, frozen=True):
    """Who asks. Its share of the gateway, and its idempotency keys, are by `name`. `app`: by whose connection it asks,
    where it has one of its own; `leave` is called when its request is over."""

    name: str
    scopes: Scopes
    app: Penstock | None = None
    leave: Callable[[], None] = nothing


def read_scopes(texts: Iterable[str]) -> Scopes:
    """Of `call:reports.*`, `queue:slow`, `read`, `revoke`, `inspect`, `metrics`. Raises `ConfigError`."""
    named: dict[str, dict[str, None]] = {CALL: {}, QUEUE: {}}
    others: set[str] = set()
    for text in texts:
        kind, colon, pattern = text.partition(":")
        if kind in NAMED and pattern:
            if len(pattern) > MAX_NAME or not pattern.isprintable():
                raise ConfigError(f"scope {text[:60]!r}: a name or glob has up to {MAX_NAME} printable characters")
            named[kind][pattern] = None
        elif kind in PLAIN and not colon:
            others.add(kind)
        else:
            known = (*(f"{one}:NAME" for one in NAMED), *PLAIN)
            remedy = f"; write {kind}:NAME, or {kind}:'GLOB'" if kind in NAMED else hint(text[:60], known)
            raise ConfigError(f"unknown scope {text[:60]!r}{remedy}")
    return Scopes(tuple(named[CALL]), frozenset(others), tuple(named[QUEUE]))
