"""The contract of a pool: how one worker process runs the deliveries that it reserves."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, cast

from msgspec import Struct

from penstock.delivery import Delivery, Settlement
from penstock.errors import ConfigError

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "prefork": "penstock.pools.inline:Prefork",
        "solo": "penstock.pools.inline:Solo",
        "threads": "penstock.pools.threads:Threads",
        "asyncio": "penstock.pools.event_loop:EventLoop",
    }
)
"""Where the pools are that come along. By name, because the contract imports none of its implementations."""


class Traits(Struct, frozen=True):
    """What a pool can enforce. What it cannot is refused when the worker starts, not when it matters."""

    name: str
    supervised: bool
    """It runs in child processes; a supervisor starts, watches and replaces them."""
    processes: bool
    """`-c N` means N processes with one slot each, not one process with N slots."""
    hard_limit: bool
    """It can end a plain function at its hard time limit."""
    soft_limit: bool
    """It can raise `SoftTimeLimitExceeded` inside a plain function."""
    shared_batch: bool = False
    """Its slots take from one batch, which the pool pulls; else each slot has one of its own, on its own thread."""
    coroutine_limit: bool = True
    """It can end a coroutine at its limits."""


class Sink(Protocol):
    """What a run publishes while it goes on; all of it is to be stored before the run is settled."""

    async def afinish(self) -> None: ...
    async def aabandon(self) -> None:
        """The same after the run has failed: what cannot be stored is logged."""
        ...


class Slot(Protocol):
    """A place where one task runs at a time."""

    delivery: Delivery | None
    """What runs here now."""
    interrupt: Callable[[Delivery], object] | None
    """Set by a pool that can cancel the coroutine that runs here for that delivery; called from any thread."""
    overdue: tuple[Delivery, BaseException] | None
    """Which run was cancelled for its time limit, and the error that says so."""

    @property
    def sink(self) -> Sink | None:
        """What this run has published and is not stored yet, if it has published any."""
        ...


class Crew(Protocol):
    """What a worker process gives to its pool."""

    slots: int
    waiting: deque[Delivery]
    """Where `pull` of the one shared batch goes; the watchdog takes from the right what does not start."""
    finished: list[Settlement]

    def serve(self, number: int) -> None:
        """Reserve, run and settle on this thread, as slot `number`, until stopped."""
        ...

    def slot(self, number: int) -> Slot: ...

    def stopped(self) -> bool: ...

    def interrupt(self) -> None:
        """Cut short a waiting `pull`."""
        ...

    def busy(self) -> None:
        """Something starts to run, after nothing did."""
        ...

    def pull(self, limit: int, idle: bool) -> bool:
        """Commit what is finished and reserve up to `limit` deliveries into `waiting`; waits for the first when `idle`.
        `False`: there is nothing. Blocks."""
        ...

    def ran(self, slot: int, count: int) -> None:
        """`slot` has run `count` tasks since it last said so."""
        ...

    def took(self, slot: Slot, seconds: float, tasks: int) -> None:
        """What has just run in `slot` took so long, and stands for so many tasks: a sample for back pressure. Of short
        tasks, not all need to be told."""
        ...

    def prepare(self, slot: Slot, delivery: Delivery, now: float) -> Settlement | None:
        """Load the slot; a settlement means that there is nothing to run. `now` is monotonic."""
        ...

    def start(self, slot: Slot) -> tuple[bool, Callable[[], Any]]:
        """Call what is due before the start; then: is it a coroutine function, and the call. Never blocks."""
        ...

    def early(self, slot: Slot) -> bool:
        """The task is to run at most once: `claim` it first, and `conclude` it at the end."""
        ...

    def claim(self, slot: Slot, delivery: Delivery) -> bool:
        """Put the start on record before it happens; `False`: do not run it. Blocks."""
        ...

    def succeed(self, slot: Slot, value: Any, now: float) -> Settlement: ...

    def fail(self, slot: Slot, error: BaseException, now: float) -> Settlement: ...

    def conclude(self, slot: Slot, settlement: Settlement) -> None:
        """The run that was claimed has ended so. Blocks."""
        ...


class Pool(Protocol):
    """Made with the `Crew` of its process."""

    traits: Traits

    def run(self) -> None:
        """Reserve, run and settle until the crew is stopped; returns when all that was started has ended."""
        ...


PoolClass = Callable[[Crew], Pool]


def load(name: str) -> tuple[PoolClass, Traits]:
    """The pool `name`: one of `BUILT_IN`, or "package.module:Class". Raises `ConfigError`."""
    path = BUILT_IN.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        raise ConfigError(f"unknown pool {name!r}: choose one of {', '.join(BUILT_IN)}, or give package.module:Class")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the pool {name!r} cannot be loaded: {error}") from error
    return cast(PoolClass, kind), kind.traits
