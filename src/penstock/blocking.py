"""Blocking calls have no place inside a running event loop: who makes one there is told so."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.errors import BlockingCallInLoop, BrokerUnavailable

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    # Not imported: who never loaded asyncio has no loop, and should not pay for it.
    module = sys.modules.get("asyncio")
    return None if module is None else module._get_running_loop()


def refuse_in_loop(call: str, instead: str) -> None:
    """Raise `BlockingCallInLoop` when a loop runs in this thread."""
    if running_loop() is not None:
        raise BlockingCallInLoop(f"{call} would block the running event loop; use {instead}")


_latest: ContextVar[float] = ContextVar("penstock_latest", default=math.inf)
"""When a call that blocks this thread must have ended (monotonic)."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Calls that block inside take no longer, whatever they would."""
    token = _latest.set(min(_latest.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _latest.reset(token)


def allowed(seconds: float) -> float:
    """Of `seconds`, those that a call that blocks may take here."""
    return min(seconds, max(0.0, _latest.get() - time.monotonic()))


async def bounded(call: Coroutine[Any, Any, T], seconds: float, where: str = "") -> T:
    """What `call` of a network engine returns. Raises `BrokerUnavailable` when it takes longer than `seconds`; it goes
    on to its end then, since what was sent cannot be unsent. An engine whose calls block this thread
    bounds them by itself. `where` is the engine's public URL, for the error."""
    if running_loop() is None:
        with at_most(seconds):
            return await call
    import asyncio  # there is a loop, so it is loaded

    running = asyncio.ensure_future(call)
    await asyncio.wait({running}, timeout=seconds)
    if running.done():
        return running.result()
    running.add_done_callback(_forget)
    place = f"{where}: " if where else ""
    raise BrokerUnavailable(f"{place}no answer within {seconds:g} s; penstock doctor says more")


def _forget(ended: asyncio.Future[Any]) -> None:
    """Its error has nobody left to tell."""
    if not ended.cancelled():
        ended.exception()
