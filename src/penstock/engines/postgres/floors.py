"""Where to begin to look in a lane. Consumed tasks are dead rows until vacuumed, which an old transaction of anybody
can hold up; a claim would wade through all of them."""

from __future__ import annotations

import json
import time

from penstock.engines.postgres.naming import BLOCK

SLACK = 16 * BLOCK
"""How far below the last claim a claim still looks: producers use the numbers they reserved in different pace."""
LASTING = 1.0
"""Seconds for which nothing is looked for below."""
SLOW, SLOW_EACH = 0.005, 0.00002
"""Seconds of a step, and of each task in it, beyond which its look may have been the reason."""


class Floors:
    """By lane, for one process. Used only when looks are slow, because what comes in below waits for `LASTING`."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._until = 0.0

    def claimed(self, lane: int, position: int) -> None:
        self._last[lane] = max(self._last.get(lane, 0), position)

    def took(self, seconds: float, tasks: int) -> None:
        """A step took so long for so many tasks."""
        if seconds > SLOW + SLOW_EACH * tasks and time.monotonic() > self._until:
            self._until = time.monotonic() + LASTING

    def forget(self) -> None:
        """Something came back below."""
        self._until = 0.0
        self._last.clear()

    def sql(self) -> str | None:
        """As `claim` takes them; `None`: look at all."""
        if not self._last or time.monotonic() > self._until:
            return None
        return json.dumps({lane: position - SLACK for lane, position in self._last.items()})
