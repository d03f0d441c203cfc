"""The agenda: all lines, and which comes next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TypeVar

from msgspec import Struct

from penstock.beat.line import Line, Tick
from penstock.beat.missed import due, first_after

T = TypeVar("T")


class Came(Struct):
    """What came due: the ticks to publish, in order; the names of the lines of which others were skipped; and of those
    whose schedule failed, which are left out from now on."""

    ticks: list[Tick]
    skipped: list[str]
    failed: list[tuple[str, Exception]]


class Agenda:
    """What fires up to `done` is dealt with."""

    def __init__(self, lines: Iterable[Line], done: float, now: float) -> None:
        self.done = done
        self._numbers = count()
        self._lines: dict[str, Line] = {}
        self._failed: list[tuple[str, Exception]] = []
        self._heap: list[tuple[float, int, Tick]] = []
        """By the time that a tick fires; a number decides between equals. Of each line there is its next tick."""
        for line in lines:
            self._lines[line.name] = line
            self._heap.extend(self._first(line, now))
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._lines)

    def change(self, lines: Iterable[Line], gone: Iterable[str], now: float) -> None:
        """These names are gone, and these lines are new, or others than they were."""
        for name in gone:
            self._lines.pop(name, None)
        for line in lines:
            self._lines[line.name] = line
            for entry in self._first(line, now):
                heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._lines) + 64:
            # What is gone or was replaced stays in the heap until its time comes, but not for ever.
            self._heap = [entry for entry in self._heap if self._is_current(entry[2])]
            heapify(self._heap)

    def due(self, now: float) -> Came:
        """What came due since the last time."""
        came = Came([], [], self._failed)
        self._failed = []
        while self._heap and self._heap[0][0] <= now:
            tick = heappop(self._heap)[2]
            if not self._is_current(tick):
                continue
            of_line = self._asked(tick.line, lambda tick=tick: due(tick, now))  # type: ignore[misc]  # mypy: lambda default
            if of_line is None:
                continue
            came.ticks.extend(of_line.ticks)
            if of_line.skipped:
                came.skipped.append(tick.line.name)
            for entry in self._entry(of_line.upcoming):
                heappush(self._heap, entry)
        self.done = max(self.done, now)
        came.ticks.sort(key=lambda tick: tick.fires)
        return came

    def wake(self) -> float | None:
        """When the next tick fires; `None`: nothing is left to come."""
        while self._heap and not self._is_current(self._heap[0][2]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _first(self, line: Line, now: float) -> list[tuple[float, int, Tick]]:
        """A line's ticks before it was there are none of its; the clock may have been set back since."""
        if line.paused:
            return []
        after = max(self.done, min(line.since, now))
        return self._entry(self._asked(line, lambda: first_after(line, after)))

    def _entry(self, tick: Tick | None) -> list[tuple[float, int, Tick]]:
        return [] if tick is None else [(tick.fires, next(self._numbers), tick)]

    def _asked(self, line: Line, ask: Callable[[], T]) -> T | None:
        """What a line says; `None`: its schedule failed, and it is left out. One of the app's own may raise anything,
        and must not stop the rest."""
        try:
            return ask()
        except Exception as error:
            self._failed.append((line.name, error))
            self._lines.pop(line.name, None)
            return None

    def _is_current(self, tick: Tick) -> bool:
        return self._lines.get(tick.line.name) is tick.line
