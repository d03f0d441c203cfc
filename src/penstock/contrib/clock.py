"""A clock for tests: it stands still until a test lets time pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from penstock.clock import ManualClock


class TravelClock(ManualClock):
    """Begins at the machine's time, so that dates which a test computes by that are near. Who waits for something that
    becomes due is rung up when it moves."""

    def __init__(self, now: float | None = None) -> None:
        super().__init__(time.time() if now is None else now)
        self.listeners: list[Callable[[], None]] = []

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass. Raises `ValueError` for less than nothing."""
        amount = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not 0 <= amount < float("inf"):
            raise ValueError(f"time passes by 0 seconds or more, not {seconds!r}")
        super().advance(amount)
        for ring in tuple(self.listeners):
            ring()

    def move_to(self, moment: datetime) -> None:
        """Let time pass until `moment`. Raises `ValueError` for one that has passed, or has no timezone."""
        if moment.utcoffset() is None:
            raise ValueError(f"{moment!r} has no timezone: give it one, such as datetime.now(UTC) has")
        self.advance(moment.timestamp() - self.time())
