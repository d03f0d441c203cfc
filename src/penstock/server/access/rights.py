"""What a user may do with a name: rights, permissions and tags. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.message import MAX_NAME
from penstock.queue import check_name
from penstock.server.access.patterns import check_pattern, matches
from penstock.spelling import hint

DEFAULT_NAMESPACE = "/"
"""The namespace of clients that name none. It is always there."""
EVERYWHERE = "*"
"""In a permission: all namespaces, those to come included."""
ADMINISTRATOR, MONITORING = "administrator", "monitoring"
TAGS = frozenset({ADMINISTRATOR, MONITORING})
DECISIONS = 256
"""Answers that are kept for each user, so that a pattern is tried once for each name."""


class Right(StrEnum):
    """Configure: declare, create, pause. Write: publish. Read: consume, settle, peek, purge."""

    CONFIGURE = "configure"
    WRITE = "write"
    READ = "read"


class Permission(Struct, frozen=True):
    """In one namespace, or `EVERYWHERE`: a pattern for each right, which must match the whole of a name. An empty
    pattern matches none."""

    namespace: str
    configure: str
    write: str
    read: str

    def covers(self, right: Right, namespace: str, name: str) -> bool:
        return self.namespace in (namespace, EVERYWHERE) and matches(getattr(self, right), name)


def check_permission(permission: Permission) -> None:
    """Raise `ConfigError` for a bad namespace or pattern. Done when it is set, not each time that it is read."""
    check_name("namespace", permission.namespace)
    for right in Right:
        check_pattern(getattr(permission, right))


def check_tags(tags: Iterable[str]) -> frozenset[str]:
    """The tags. Raises `ConfigError` for one that means nothing."""
    given = frozenset(tags)
    for tag in sorted(given - TAGS):
        raise ConfigError(f"unknown tag {tag!r}{hint(tag, TAGS)}")
    return given


class Rights:
    """What one user's permissions come to: they add up. Equal permissions are equal rights."""

    def __init__(self, permissions: Iterable[Permission] = ()) -> None:
        self.permissions = tuple(permissions)
        self._decided = lru_cache(DECISIONS)(self._decide)

    def may(self, right: Right, namespace: str, name: str) -> bool:
        """Whether `right` on `name` is given. `name` is hostile: one that is too long is never looked at."""
        return 0 < len(name) <= MAX_NAME and self._decided(right, namespace, name)

    def reach(self, namespace: str) -> bool:
        """Whether there is anything in `namespace` for this user."""
        return any(one.namespace in (namespace, EVERYWHERE) for one in self.permissions)

    def consumes(self, namespace: str) -> bool:
        """Whether there is anything in `namespace` that this user may read: else it only publishes."""
        return any(one.namespace in (namespace, EVERYWHERE) and one.read for one in self.permissions)

    def _decide(self, right: Right, namespace: str, name: str) -> bool:
        return any(one.covers(right, namespace, name) for one in self.permissions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rights) and self.permissions == other.permissions

    def __hash__(self) -> int:
        return hash(self.permissions)

    def __repr__(self) -> str:
        return f"Rights({self.permissions!r})"
