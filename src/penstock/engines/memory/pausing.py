"""How a step waits, be its caller blocking or awaiting: it awaits a `Pause`, which `run` and `arun` end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue

Wake = Callable[[], None]


class Waiters:
    """All who wait for something to happen in one store."""

    def __init__(self) -> None:
        self.rings = 0
        self._waiting: set[Wake] = set()

    def ring(self) -> None:
        """Something happened. Called under the store's lock, so that no ring is lost between a look and a wait."""
        self.rings += 1
        self.wake_all()

    def wake_all(self) -> None:
        # Safe in a signal handler: no lock, and copying a set of functions runs no Python code.
        for wake in tuple(self._waiting):
            wake()

    def add(self, wake: Wake) -> None:
        self._waiting.add(wake)

    def remove(self, wake: Wake) -> None:
        self._waiting.discard(wake)


class Pause:
    """Awaited by a step that has nothing to deliver; ends when `look()` is not what was `seen`, or after `seconds`."""

    def __init__(self, waiters: Waiters, seen: object, look: Callable[[], object], seconds: float) -> None:
        self._waiters = waiters
        self._seen = seen
        self._look = look
        self._seconds = seconds

    def __await__(self) -> Generator[Pause, None, None]:
        yield self

    def block(self) -> None:
        """Wait on this thread."""
        # A SimpleQueue, because its `put` is reentrant: a signal handler may wake this very thread.
        woken: SimpleQueue[None] = SimpleQueue()
        wake = functools.partial(woken.put, None)
        self._waiters.add(wake)
        try:
            if self._look() == self._seen:
                woken.get(timeout=self._seconds)
        except Empty:
            pass
        finally:
            self._waiters.remove(wake)

    async def suspend(self) -> None:
        """Wait on the running loop, which goes on meanwhile."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        self._waiters.add(wake)
        try:
            if self._look() == self._seen:
                await asyncio.wait_for(woken.wait(), self._seconds)
        except TimeoutError:
            pass
        finally:
            self._waiters.remove(wake)
