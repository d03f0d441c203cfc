"""Credit: how much to reserve, so that what is reserved can be started now."""

from __future__ import annotations

TARGET = 0.005
"""Seconds of work in one batch: long enough to share a commit, short enough to give every worker its part."""
LARGEST = 512
_WEIGHT = 0.3


class Credit:
    """What one slot asks for: about `TARGET` seconds of work by its tasks' own average duration, between 1 and
    `largest`.

    It doubles from batch to batch while tasks are short, and falls at once when they are long. One average per slot: a
    batch is reserved before its tasks are known, and what a long one holds up is handed back.
    """

    __slots__ = ("_allowed", "_average", "_largest", "_workers")

    def __init__(self, largest: int = LARGEST, workers: int = 1) -> None:
        """`workers` run the batch at the same time."""
        self._largest = largest
        self._workers = workers
        self._average = 0.0
        self._allowed = workers

    @property
    def want(self) -> int:
        return self._allowed

    def ran(self, tasks: int, seconds: float) -> None:
        """`tasks` tasks took `seconds` altogether (in parallel: of one worker's time each)."""
        if not tasks:
            return
        duration = seconds / tasks
        weight = 1.0 if duration > self._average else _WEIGHT
        self._average += (duration - self._average) * weight
        target = int(self._workers * TARGET / self._average) if self._average > 0 else self._largest
        self._allowed = max(self._workers, min(target, self._largest, self._allowed * 2))
