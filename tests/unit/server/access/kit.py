"""What tests of signing in share: a book, a gatekeeper whose argon2 is cheap and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from argon2 import Parameters
from argon2.profiles import CHEAPEST

from penstock.clock import ManualClock
from penstock.errors import AccessRefused
from penstock.server.access.book import Book
from penstock.server.access.identity import Identity
from penstock.server.access.passwords import Passwords
from penstock.server.access.rights import Permission
from penstock.server.access.signing_in import Credentials, Gatekeeper

ALL = Permission("/", ".*", ".*", ".*")
PASSWORD = "correct horse"
HERE = "192.0.2.1"


class Counted(Passwords):
    """`runs` is what argon2 was asked: with a hash of somebody, or of nobody."""

    def __init__(self, parameters: Parameters = CHEAPEST) -> None:
        super().__init__(parameters)
        self.runs: list[bool] = []

    def verify(self, kept: str | None, password: str) -> bool:
        self.runs.append(kept is not None)
        return super().verify(kept, password)


class Door:
    """A book in which `ada` may do all in `/`, and a gatekeeper before it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.book = Book(folder, self.clock)
        self.passwords = Counted()
        self.book.add_user("ada", self.passwords.hash(PASSWORD))
        self.book.permit("ada", ALL)
        self.keeper = Gatekeeper(self.book, clock=self.clock, passwords=self.passwords)

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `work` returns. All of a test's sign-ins go in one: a gatekeeper has one loop."""
        try:
            return asyncio.run(work())
        finally:
            self.keeper.close()
            self.book.close()

    async def enter(
        self,
        user: str = "ada",
        secret: str = PASSWORD,
        *,
        address: str = HERE,
        namespace: str = "/",
        certificate: str | None = None,
    ) -> Identity:
        return await self.keeper.sign_in(Credentials(user, secret, certificate), address, namespace)

    async def refused(self, *who: str, **how: Any) -> str:
        """What the client is told."""
        try:
            identity = await self.enter(*who, **how)
        except AccessRefused as error:
            return str(error)
        raise AssertionError(f"{identity} was let in")
