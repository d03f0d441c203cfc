"""One event loop on one thread, for the network engines of a process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from penstock.errors import BlockingCallInLoop

T = TypeVar("T")


class LoopThread:
    """Engines that share one may await each other's coroutines: `OrderedCommitter` does."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="penstock-network", daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            call.close()
            raise BlockingCallInLoop("a blocking call from the network thread would wait for itself")
        return self.spawn(call).result()

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            return await call
        return await asyncio.wrap_future(self.spawn(call))

    def spawn(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self.loop)

    def soon(self, call: Callable[[], object]) -> None:
        """From any thread or signal handler."""
        self.loop.call_soon_threadsafe(call)

    def close(self) -> None:
        self.run(_cancel_others())
        self.soon(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
