"""Whether the broker can be asked, for those who have no token: so it is looked at once a second, whoever asks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from penstock.app import Penstock
from penstock.blocking import at_most
from penstock.errors import AccessRefused, BrokerError, PenstockError
from penstock.gateway.steps import Step

FRESH = 1.0
"""Seconds for which an answer holds; meanwhile nobody asks the broker."""
PATIENCE = 2.0
"""Seconds that the broker has to answer."""


class Readiness:
    """Thread-safe. Of those who ask, one at a time waits for the broker; the others are told what was last known."""

    def __init__(self, ask: Callable[[], object]) -> None:
        """`ask` asks the broker something, and blocks; it raises what there is against it."""
        self._ask = ask
        self._looked = -math.inf
        self._looking = False
        self._ready = False

    def look(self) -> Step:
        """Answered with whether it is ready."""
        if self._looking or time.monotonic() - self._looked < FRESH:
            return Step(self._known, self._told)
        self._looked = time.monotonic()
        return Step(self._block, self._awaited)

    def _known(self) -> bool:
        return self._ready and time.monotonic() - self._looked < FRESH + PATIENCE

    async def _told(self) -> bool:
        return self._known()

    def _block(self) -> bool:
        if self._looking:
            return self._known()
        self._looking = True
        try:
            with at_most(PATIENCE):
                self._ready = answers(self._ask)
        finally:
            self._looking = False
        return self._ready

    async def _awaited(self) -> bool:
        import asyncio  # who awaits has loaded it

        looking = asyncio.ensure_future(asyncio.to_thread(self._block))  # what opens an engine blocks
        await asyncio.wait([looking], timeout=PATIENCE)
        return looking.result() if looking.done() else False


def ask_of_queue(app: Penstock) -> None:
    """Ask by the app's own connection."""
    app.engine.run(app.broker.depth(app.conf.task_default_queue, app.conf.namespace))


def knock_at(app: Penstock) -> None:
    """Ask a broker whose users the callers are, without being one."""
    from penstock.engines.server.knock import knock  # only who has its users has the engine

    knock(app.broker_url)


def answers(ask: Callable[[], object]) -> bool:
    """Whether the broker answered at all: a refusal is an answer."""
    try:
        ask()
    except AccessRefused:
        return True
    except BrokerError:
        return False
    except PenstockError:
        return True
    return True
