"""Starlette, and FastAPI, which stands on it: a queue that is open while the application is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import HTTPConnection

from penstock.app import Penstock
from penstock.errors import ConfigError

STATE = "penstock"

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]


def lifespan(queue: Penstock) -> Lifespan:
    """`Starlette(…, lifespan=lifespan(queue))`: a broker that cannot be reached, or a bad setting, is seen when the
    application starts and not at its first call; it is left when the application ends. Requests have the app as
    `request.state.penstock`. Inside a lifespan of your own: `async with lifespan(queue)(app) as state: yield state`."""

    @asynccontextmanager
    async def opened(_: Any) -> AsyncIterator[Mapping[str, Any]]:
        await asyncio.to_thread(_open, queue)
        try:
            yield {STATE: queue}
        finally:
            await asyncio.to_thread(queue.close)

    return opened


def app_of(connection: HTTPConnection) -> Penstock:
    """The app that `lifespan` opened. Raises `ConfigError` where there was none."""
    found = getattr(connection.state, STATE, None)
    if not isinstance(found, Penstock):
        raise ConfigError(
            "this request knows no Penstock app: make the application with lifespan=penstock.contrib.starlette."
            "lifespan(queue); a test client runs it only as `with TestClient(app) as client`"
        )
    return found


def _open(queue: Penstock) -> None:
    """The broker, and what keeps results, where that is another server."""
    queue.client.engine  # noqa: B018
