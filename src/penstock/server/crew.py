"""The workers of one namespace, as the broker knows them: their connections, and what they note that they start."""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

Pair = tuple[int, int]

GRACE = 2.0
"""Seconds that a worker whose connection was closed has to come back, before what it holds is ready again. Its own
supervisor buries it sooner, and knows what it had started."""
SILENCE = 90.0
"""The same for one of which nothing was heard any more: it may be running something that lets it say nothing, and its
supervisor renews its leases; they end by their own time if nobody does."""


class Member(Struct):
    """A worker that has joined. `connection` is where; `gone_at`: when it counts as dead, as its connection has ended
    (monotonic)."""

    user: str
    connection: object
    started: set[Pair]
    gone_at: float | None = None


class Crew:
    """What the embedded engine's registry is to the processes of one machine (`Registered`)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._members: dict[str, Member] = {}

    def join(self, worker: str, user: str, connection: object) -> None:
        """It is alive, on this connection; maybe it was on another."""
        member = self._members.get(worker)
        if member is None:
            self._members[worker] = Member(user, connection, set())
        else:
            member.connection, member.gone_at = connection, None

    def user_of(self, worker: str) -> str | None:
        """Who signed it on; `None` for a worker that did not."""
        member = self._members.get(worker)
        return None if member is None else member.user

    def lost(self, connection: object, *, closed: bool) -> None:
        """The connection has ended: `closed` by the other side, whose process has ended or will come back at once; or
        because nothing was heard of it."""
        gone_at = self._monotonic() + (GRACE if closed else SILENCE)
        for member in self._members.values():
            if member.connection is connection:
                member.gone_at = gone_at

    def renew(self, worker: str) -> None:
        """Somebody who sees it says that it is alive."""
        member = self._members.get(worker)
        if member is not None and member.gone_at is not None and member.gone_at - self._monotonic() > GRACE:
            member.gone_at = self._monotonic() + SILENCE

    def note(self, worker: str, pairs: Collection[Pair]) -> None:
        """What it runs now."""
        member = self._members.get(worker)
        if member is not None:
            member.started = set(pairs)

    def open(self, worker: str, slots: int) -> None:
        """Starts are noted on the worker's own machine."""

    def is_dead(self, worker: str) -> bool:
        member = self._members.get(worker)
        return member is not None and member.gone_at is not None and self._monotonic() >= member.gone_at

    def started(self, worker: str) -> set[Pair]:
        member = self._members.get(worker)
        return set() if member is None else member.started

    def files(self) -> list[str]:
        return list(self._members)

    def remove(self, worker: str) -> None:
        self._members.pop(worker, None)

    def close(self) -> None:
        self._members.clear()
