"""Who a client is, once it has signed in, and what it may do now."""

from __future__ import annotations

import logging
from typing import Protocol

from msgspec import Struct

from penstock.errors import AccessRefused
from penstock.server.access.accounts import BOOTSTRAP, Account, Snapshot
from penstock.server.access.book import Book
from penstock.server.access.rights import ADMINISTRATOR, MONITORING, Right, Rights

log = logging.getLogger("penstock.broker.access")
MAX_SHOWN = 200
"""Characters of a name from outside that are told or logged."""


class Proof(Protocol):
    """How a user signed in. It holds for as long as the book says the same."""

    def account(self, user: str, now: Snapshot) -> Account | None:
        """The user as of now; `None`: it is gone, or what was proved counts no more."""
        ...


class ByPassword(Struct, frozen=True):
    generation: int

    def account(self, user: str, now: Snapshot) -> Account | None:
        found = now.users.get(user)
        return found if found and found.generation == self.generation else None


class ByToken(Struct, frozen=True):
    token_id: str

    def account(self, user: str, now: Snapshot) -> Account | None:
        token = now.tokens.get(self.token_id)
        return now.users.get(user) if token and token.user == user else None


class ByCertificate(Struct, frozen=True):
    def account(self, user: str, now: Snapshot) -> Account | None:
        return now.users.get(user)


class ByOneTime(Struct, frozen=True):
    digest: bytes

    def account(self, user: str, now: Snapshot) -> Account | None:
        """May administer, and touch no queue."""
        if now.one_time is None or now.one_time.digest != self.digest:
            return None
        return Account(BOOTSTRAP, None, 0, frozenset({ADMINISTRATOR}), Rights())


class Identity:
    """A user who has signed in. What it may do is looked up each time: a right or user that is removed counts at
    once."""

    def __init__(
        self, book: Book, user: str, proof: Proof, address: str, namespace: str, expires: float | None = None
    ) -> None:
        self.user = user
        self.address = address
        self.namespace = namespace
        self.proof = proof
        self.expires = expires
        """Unix time; `None`: the secret does not expire."""
        self._book = book

    def __repr__(self) -> str:
        return f"<Identity {self.user!r} from {self.address}>"

    @property
    def account(self) -> Account | None:
        """The user as of now; `None` when it is gone, its token revoked, or its password changed."""
        return self.proof.account(self.user, self._book.snapshot)

    @property
    def as_of(self) -> object:
        """Another object after each change of anybody's rights."""
        return self._book.snapshot

    @property
    def tags(self) -> frozenset[str]:
        account = self.account
        return account.tags if account else frozenset()

    @property
    def administrator(self) -> bool:
        return ADMINISTRATOR in self.tags

    @property
    def monitors(self) -> bool:
        """May see the state of everything; an administrator may."""
        return bool(self.tags & {ADMINISTRATOR, MONITORING})

    @property
    def has_token(self) -> bool:
        """It signed in with a token."""
        return isinstance(self.proof, ByToken)

    def still_valid(self, now: float) -> bool:
        """Whether what it signed in with would still let it in at the Unix time `now`; if not, cut it off."""
        there = self.namespace in self._book.snapshot.namespaces
        return there and self.account is not None and (self.expires is None or now < self.expires)

    def may(self, right: Right, namespace: str, name: str) -> bool:
        """Whether it has `right` on `name` now. Does not look at the time: see `still_valid`."""
        account = self.account
        return account is not None and account.rights.may(right, namespace, name)

    def consumes(self, namespace: str) -> bool:
        """It may read something there, as workers do."""
        account = self.account
        return account is not None and account.rights.consumes(namespace)

    def refusal(self, right: Right, kind: str, namespace: str, name: str) -> AccessRefused:
        """The error for a client that lacks `right` on the `kind` ("queue", "state" …) of that name; it is logged. It
        says nothing of whether there is such a thing."""
        place = f"{kind} {name[:MAX_SHOWN]!r} in namespace {namespace[:MAX_SHOWN]!r}"
        return self.refused(
            f"user {self.user!r} has no {right.value} right on {place}",
            "an administrator can give it with penstock users permit",
        )

    def untagged(self, tag: str, what: str) -> AccessRefused:
        """The error for a client that lacks `tag`, which `what` ("users add", say) needs; it is logged."""
        return self.refused(
            f"{what} needs the tag {tag}, which user {self.user!r} does not have",
            "an administrator can give it with penstock users tag",
        )

    def refused(self, why: str, remedy: str) -> AccessRefused:
        """The error that tells the client `why`, and what to do; it is logged, with all that the user has."""
        account = self.account
        has = f"it has {sorted(account.tags)} {list(account.rights.permissions)}" if account else "it is signed out"
        log.warning("refused %s: %s; %s", self.address, why, has)
        return AccessRefused(f"{why}: {remedy}")
