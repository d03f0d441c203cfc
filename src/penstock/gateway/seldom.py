"""Lines of the log of which there would be thousands: an overload, or a client that asks for ever."""

from __future__ import annotations

import threading

from penstock.clock import Clock

EVERY = 10.0
"""Seconds between two lines of one kind."""
KINDS = 100
"""Kinds that are told apart; the others are one."""


class Seldom:
    """Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, int]] = {}

    def again(self, kind: str) -> str | None:
        """What to add to a line of this kind: how many were kept back before it. `None`: this one is kept back."""
        now = self._clock.monotonic()
        with self._lock:
            kind = kind if kind in self._kept or len(self._kept) < KINDS else ""
            last, kept = self._kept.get(kind, (float("-inf"), 0))
            if now - last < EVERY:
                self._kept[kind] = (last, kept + 1)
                return None
            self._kept[kind] = (now, 0)
        return f" ({kept:,} more like it before)" if kept else ""
