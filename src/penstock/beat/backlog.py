"""Ticks that are to be published and are not yet: their queue is full, or the broker did not answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.beat.line import MOST_CAUGHT_UP, Tick

PAUSES = (0.1, 5.0)
"""The shortest and the longest pause, in seconds, before a full queue is tried again."""


class Backlog:
    """By queue, each in the order in which its ticks fire. With "none" and "latest" one tick of a line waits, its
    newest."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, list[Tick]]] = {}
        """Queue → line → its ticks."""
        self._again: dict[str, float] = {}
        """Full queue → the monotonic time at which it is tried again."""

    def add(self, ticks: Iterable[Tick]) -> list[Tick]:
        """These came due. Returns the ticks that they replace."""
        replaced: list[Tick] = []
        for tick in ticks:
            waiting = self._waiting.setdefault(tick.line.message.queue, {}).setdefault(tick.line.name, [])
            keep = MOST_CAUGHT_UP - 1 if tick.line.catch_up == "all" else 0
            cut = max(0, len(waiting) - keep)
            replaced.extend(waiting[:cut])
            del waiting[:cut]
            waiting.append(tick)
        return replaced

    def ready(self, now: float) -> list[list[Tick]]:
        """What may be tried at `now` (monotonic): the ticks of each such queue, in order."""
        return [
            sorted((tick for waiting in lines.values() for tick in waiting), key=lambda tick: tick.fires)
            for queue, lines in self._waiting.items()
            if self._again.get(queue, now) <= now
        ]

    def drop_late(self, now: float) -> list[Tick]:
        """Give up what is later than its line allows, at `now` in Unix time. Returns what is dropped."""
        late = [tick for tick in self._all() if now - tick.fires > tick.line.bound]
        self.done(late)
        return late

    def done(self, ticks: Iterable[Tick]) -> None:
        """These wait no longer."""
        for tick in ticks:
            queue, name = tick.line.message.queue, tick.line.name
            lines = self._waiting.get(queue, {})
            waiting = lines.get(name, [])
            waiting[:] = [other for other in waiting if other is not tick]
            if not waiting:
                lines.pop(name, None)
            if not lines:
                self._waiting.pop(queue, None)
                self._again.pop(queue, None)

    def refused(self, queue: str, again: float, now: float) -> bool:
        """The queue is full, and is tried again in `again` seconds. Whether that is new."""
        shortest, longest = PAUSES
        new = queue not in self._again
        self._again[queue] = now + min(longest, max(shortest, again))
        return new

    def accepted(self, queue: str) -> bool:
        """The queue takes tasks. Whether it was full before."""
        return self._again.pop(queue, None) is not None

    def forget(self, names: Iterable[str]) -> None:
        """These lines are gone, or others now."""
        gone = set(names)
        self.done([tick for tick in self._all() if tick.line.name in gone])

    def oldest(self) -> float | None:
        """When the first that waits fired."""
        return min((tick.fires for tick in self._all()), default=None)

    def wake(self, now: float) -> float | None:
        """Seconds until something may be tried; `None`: nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, min(self._again.get(queue, now) - now for queue in self._waiting))

    def _all(self) -> list[Tick]:
        return [tick for lines in self._waiting.values() for waiting in lines.values() for tick in waiting]
