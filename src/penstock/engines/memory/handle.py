"""An open memory engine: a handle on a store that lives as long as this process."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from penstock.clock import Clock, SystemClock
from penstock.engines.memory.backend_face import MemoryBackend
from penstock.engines.memory.broker_face import MemoryBroker
from penstock.engines.memory.coordinator_face import MemoryCoordinator
from penstock.engines.memory.inspect_face import MemoryInspect
from penstock.engines.memory.pausing import Pause
from penstock.engines.memory.shelf import RESULT_BYTES, RESULT_TTL, Shelf
from penstock.engines.memory.store import Store
from penstock.errors import ConfigError, Unsupported
from penstock.queue import Queue

T = TypeVar("T")

URL = "memory://"


class MemoryEngine:
    """A handle on a store; several may share one, as several processes share a server."""

    transactional = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pid = os.getpid()
        self.url = URL
        self.broker = MemoryBroker(store)
        self.backend = MemoryBackend(store)
        self.coordinator = MemoryCoordinator(store)
        self.inspect = MemoryInspect(store)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_process()
            while True:
                self._pause(call).block()
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what a coroutine returns is not part of StopIteration's type
        finally:
            call.close()

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_process()
            while True:
                await self._pause(call).suspend()
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what a coroutine returns is not part of StopIteration's type
        finally:
            call.close()

    apublish = arun

    def another(self) -> MemoryEngine:
        """Another handle on the same store."""
        return type(self)(self._store)

    def writer_pid(self) -> int | None:
        """No process but this one writes."""
        return None

    def close(self) -> None:
        self.broker.interrupt()
        self._store.shelf.close()

    def _pause(self, call: Coroutine[Any, Any, T]) -> Pause:
        """Run on to the next wait. Raises `StopIteration` with the result at the end."""
        pause = call.send(None)
        if not isinstance(pause, Pause):
            raise TypeError(f"the memory engine runs its own coroutines only; this one awaits {pause!r}")
        return pause

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Unsupported(
                f"memory:// lives in process {self._pid} only, this is {os.getpid()}; "
                "use a file (sqlite://) to share work"
            )


def open_engine(
    url: str = URL,
    *,
    clock: Clock | None = None,
    queues: Sequence[Queue] = (),
    namespace: str = "",
    result_expires: float = RESULT_TTL,
    result_max_bytes: int = RESULT_BYTES,
) -> MemoryEngine:
    """A new, empty engine. `queues` are declared in `namespace`, others are made with the default bounds when they are
    first used. Results are kept `result_expires` seconds, up to `result_max_bytes`. Raises `ConfigError` for another
    URL."""
    if url != URL:
        raise ConfigError(f"{url!r}: the memory engine has no address, its URL is {URL!r}")
    clock = clock or SystemClock()
    engine = MemoryEngine(Store(clock, Shelf(clock, result_expires, result_max_bytes)))
    engine.run(engine.inspect.declare(queues, namespace))
    return engine
