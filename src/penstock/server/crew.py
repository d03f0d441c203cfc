"""The workers of one namespace, as the broker knows them: their connections, and what they note that they start."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

Pair = tuple[int, int]

GRACE = 2.0
"""Seconds that a worker whose connection was closed has to come back, before what it holds is ready again. Its own
supervisor buries it sooner, and knows what it had started."""


class Member(Struct):
    """A worker that has joined. `lost`: since when its connection is closed (monotonic)."""

    user: str
    started: set[Pair]
    lost: float | None = None


class Crew:
    """What the embedded engine's registry is to the processes of one machine (`Registered`)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._members: dict[str, Member] = {}

    def join(self, worker: str, user: str) -> None:
        member = self._members.get(worker)
        if member is None:
            self._members[worker] = Member(user, set())
        else:
            member.lost = None

    def user_of(self, worker: str) -> str | None:
        """Who signed it on; `None` for a worker that did not."""
        member = self._members.get(worker)
        return None if member is None else member.user

    def gone(self, workers: Iterable[str]) -> None:
        """Their connection was closed by the other side: its process has ended, or will come back at once."""
        for worker in workers:
            member = self._members.get(worker)
            if member is not None:
                member.lost = self._monotonic()

    def note(self, worker: str, pairs: Collection[Pair]) -> None:
        """What it runs now."""
        member = self._members.get(worker)
        if member is not None:
            member.started = set(pairs)

    def open(self, worker: str, slots: int) -> None:
        """Starts are noted on the worker's own machine."""

    def is_dead(self, worker: str) -> bool:
        member = self._members.get(worker)
        return member is not None and member.lost is not None and self._monotonic() - member.lost >= GRACE

    def started(self, worker: str) -> set[Pair]:
        member = self._members.get(worker)
        return set() if member is None else member.started

    def files(self) -> list[str]:
        return list(self._members)

    def remove(self, worker: str) -> None:
        self._members.pop(worker, None)

    def close(self) -> None:
        self._members.clear()
