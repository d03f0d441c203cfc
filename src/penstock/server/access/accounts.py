"""What the book says, as values: one frozen snapshot, which is what is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from penstock.server.access.rights import ADMINISTRATOR, DEFAULT_NAMESPACE, Rights

BOOTSTRAP = "bootstrap"
"""The user of the one-time credential, and nobody else's name."""


class Account(Struct, frozen=True):
    """A user. `password` is an argon2 hash, `None` for one who signs in by token or certificate only. `generation` is
    another number after each change of password, and for another user of the same name."""

    name: str
    password: str | None
    generation: int
    tags: frozenset[str]
    rights: Rights

    def __repr__(self) -> str:
        return f"<Account {self.name!r}>"  # the hash is for no log

    @property
    def owns(self) -> bool:
        """An administrator who can come back: with one, there is no need for the one-time credential."""
        return self.password is not None and ADMINISTRATOR in self.tags


class Token(Struct, frozen=True):
    """`digest` is of the secret. Times are Unix times in seconds."""

    id: str
    user: str
    digest: bytes
    created: float
    expires: float


class OneTime(Struct, frozen=True):
    """The one-time credential, as it is kept."""

    digest: bytes
    expires: float


class Snapshot(Struct, frozen=True):
    users: Mapping[str, Account] = {}
    tokens: Mapping[str, Token] = {}
    namespaces: frozenset[str] = frozenset({DEFAULT_NAMESPACE})
    one_time: OneTime | None = None

    @property
    def owned(self) -> bool:
        return any(account.owns for account in self.users.values())

    def tokens_of(self, user: str) -> list[Token]:
        """The oldest first."""
        return sorted((one for one in self.tokens.values() if one.user == user), key=lambda one: (one.created, one.id))
