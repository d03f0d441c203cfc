"""Health is progress: a connection on which the oldest publish stays without its confirm is given up.

The channel of a live node that sent to a queue's leader just before that was lost may never hear of the new one: what
it sent stays unconfirmed for ever, while a new connection would be served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstock.engines.rabbitmq.connection import Connection
from penstock.errors import BrokerUnavailable

PATIENCE = (2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds without progress, on one connection after another. An election takes a few of the short ones; a server that
is only slow is not to get the same messages every two seconds."""
LOOKS = 4
"""Looks in that time: one alone may be late because this process stood still, with all confirms unread."""


class Patience:
    """How long to wait for progress: shared by the connections that are made one after another."""

    def __init__(self) -> None:
        self._fruitless = 0

    @property
    def seconds(self) -> float:
        return PATIENCE[min(self._fruitless, len(PATIENCE) - 1)]

    def rewarded(self) -> None:
        self._fruitless = 0

    def exhausted(self) -> None:
        self._fruitless += 1


class Watch:
    """Of one connection, while something is under way. `oldest` tells which publish waits longest, `None`: none."""

    def __init__(self, connection: Connection, patience: Patience, oldest: Callable[[], int | None]) -> None:
        self._connection = connection
        self._patience = patience
        self._oldest = oldest
        self._stuck: int | None = None
        self._looks = 0
        self._handed = 0
        self._timer: asyncio.TimerHandle | None = None
        connection.on_lost.append(lambda error: self._stop())

    def start(self) -> None:
        """Something was sent."""
        if self._timer is None and self._connection.error is None:
            self._stuck, self._looks = self._oldest(), 0
            self._again()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._patience.seconds / LOOKS, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        oldest, connection = self._oldest(), self._connection
        moved = oldest != self._stuck
        if moved and self._stuck is not None:
            self._patience.rewarded()
        moves = moved or connection.alarm is not None or self._is_sending()
        self._stuck, self._looks = oldest, 0 if moves else self._looks + 1
        if self._looks >= LOOKS:
            self._give_up()
        elif oldest is not None:
            self._again()

    def _is_sending(self) -> bool:
        """What waits here to be sent is not the server's fault, as long as it becomes less."""
        waiting, handed = self._connection.backlog()
        before, self._handed = self._handed, handed
        return waiting > 0 and handed > before

    def _give_up(self) -> None:
        connection, seconds = self._connection, self._patience.seconds
        self._patience.exhausted()
        text = f"{connection.address} confirmed nothing for {seconds:.3g} s of what it was sent"
        connection.abort(BrokerUnavailable(f"{connection.login.url}: {text}"))
