"""The agenda: all lines, and which comes next. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import count

from penstock.beat.line import Line, Tick
from penstock.beat.missed import due, first_after


class Agenda:
    """What fires up to `done` is dealt with."""

    def __init__(self, lines: Iterable[Line], done: float, now: float) -> None:
        self.done = done
        self._numbers = count()
        self._lines: dict[str, Line] = {}
        self._heap: list[tuple[float, int, Tick]] = []
        """By the time that a tick fires; a number decides between equals. Of each line there is its next tick."""
        for line in lines:
            self._lines[line.name] = line
            self._heap.extend(self._entry(first_after(line, self._after(line, now))))
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._lines)

    def change(self, lines: Iterable[Line], gone: Iterable[str], now: float) -> None:
        """These lines are new or others, and those names are gone."""
        for name in gone:
            self._lines.pop(name, None)
        for line in lines:
            self._lines[line.name] = line
            for entry in self._entry(first_after(line, self._after(line, now))):
                heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._lines) + 64:
            # What is gone or was replaced stays in the heap until its time comes, but not for ever.
            self._heap = [entry for entry in self._heap if self._is_current(entry[2])]
            heapify(self._heap)

    def due(self, now: float) -> tuple[list[Tick], list[str]]:
        """What came due since the last time: the ticks to publish, in order, and the names of the lines of which others
        were skipped."""
        found: list[Tick] = []
        skipped: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            tick = heappop(self._heap)[2]
            if not self._is_current(tick):
                continue
            came = due(tick, now)
            found.extend(came.ticks)
            if came.skipped:
                skipped.append(tick.line.name)
            for entry in self._entry(came.upcoming):
                heappush(self._heap, entry)
        self.done = max(self.done, now)
        found.sort(key=lambda tick: tick.fires)
        return found, skipped

    def wake(self) -> float | None:
        """When the next tick fires; `None`: nothing is left to come."""
        while self._heap and not self._is_current(self._heap[0][2]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _after(self, line: Line, now: float) -> float:
        """A line's ticks before it was there are none of its; the clock may have been set back since."""
        return max(self.done, min(line.since, now))

    def _entry(self, tick: Tick | None) -> list[tuple[float, int, Tick]]:
        if tick is None or tick.line.paused:
            return []
        return [(tick.fires, next(self._numbers), tick)]

    def _is_current(self, tick: Tick) -> bool:
        return self._lines.get(tick.line.name) is tick.line
