"""A connection that is kept: watched over, given up, and made anew as long as it takes."""

from __future__ import annotations

import asyncio

import pytest

from penstock.engines.network.keeping import keep


class Kept:
    """Its watch ends as `watches` say, and `failures` tries to connect fail after each."""

    def __init__(self, watches: list[str | Exception], failures: int) -> None:
        self.told: list[str] = []
        self._watches = watches
        self._failures = self._left = failures

    async def watch(self) -> str:
        if not self._watches:
            raise asyncio.CancelledError
        ended = self._watches.pop(0)
        if isinstance(ended, Exception):
            raise ended
        return ended

    def lose(self, reason: str) -> None:
        self.told.append(f"lost: {reason}")
        self._left = self._failures

    async def reconnect(self) -> None:
        if self._left:
            self._left -= 1
            raise OSError("nobody there")
        self.told.append("back")

    def failed(self, error: Exception) -> None:
        self.told.append(str(error))


def test_it_is_made_anew_each_time_it_is_lost_however_often_that_fails() -> None:
    kept = Kept(["gone", ValueError("stumbled")], failures=2)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep(kept, sleep))
    tries = ["nobody there", "nobody there", "back"]
    assert kept.told == ["lost: gone", *tries, "lost: stumbled", *tries]
    assert len(slept) == 6 and all(0 < pause <= 0.2 for pause in slept)
