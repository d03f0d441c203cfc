"""Keeping a connection: watch over it, and connect anew as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock.engines.network.patience import pauses


class Kept(Protocol):
    """What is kept, as its keeper sees it. It says itself what it does, and why."""

    async def watch(self) -> str:
        """Returns why this connection is of no use any more."""
        ...

    def lose(self, reason: str) -> None:
        """It is given up."""
        ...

    async def reconnect(self) -> None:
        """Once. Raises when that fails."""
        ...

    def failed(self, error: Exception) -> None:
        """The next try may do."""
        ...


async def keep(kept: Kept, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Until it is cancelled."""
    while True:
        try:
            reason = await kept.watch()
        except Exception as error:  # who watches must not fall asleep over it
            reason = str(error)
        kept.lose(reason)
        for pause in pauses():
            await sleep(pause)
            try:
                await kept.reconnect()
                break
            except Exception as error:  # whatever it is
                kept.failed(error)
