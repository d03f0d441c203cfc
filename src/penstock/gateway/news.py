"""Waiting for what an engine tells from a thread of its own, on a thread or on a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.backend import Lost, Subscription
from penstock.errors import BrokerError
from penstock.gateway.steps import Waiting

if TYPE_CHECKING:
    import asyncio


class News:
    """Whether something may be new since the last wait. One waits at a time."""

    def __init__(self, subscribe: Callable[[Callable[[], None], Lost], Subscription]) -> None:
        self._told = threading.Event()
        self._woken: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: BrokerError | None = None
        self._subscription = subscribe(self._ring, self._lose)

    def within(self, seconds: float) -> Waiting:
        """Wait for it; answered with whether there is any. Raises what the subscription was lost by."""

        def block() -> bool:
            return self._taken(self._subscription.wait(self._told, seconds))

        async def awaited() -> bool:
            import asyncio  # who awaits has loaded it

            if self._woken is None:
                self._woken, self._loop = asyncio.Event(), asyncio.get_running_loop()
            # After the loop is known: who rang before did not wake it.
            if not self._told.is_set():
                try:
                    async with asyncio.timeout(seconds):
                        await self._woken.wait()
                except TimeoutError:
                    return False
            self._woken.clear()
            return self._taken(True)

        return Waiting(block, awaited)

    def close(self) -> None:
        self._subscription.close()

    def _taken(self, told: bool) -> bool:
        if self._failed is not None:
            raise self._failed
        self._told.clear()
        return told

    def _ring(self) -> None:
        self._told.set()
        loop, woken = self._loop, self._woken
        if loop is not None and woken is not None and not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    def _lose(self, error: BrokerError) -> None:
        self._failed = error
        self._ring()
