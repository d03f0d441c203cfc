"""Rates: counters read once a second, and what they grew by in the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping

SAMPLES = 6
"""Seconds over which a rate is told."""


class Rates:
    """Of many things, each with the same counters."""

    def __init__(self) -> None:
        self._samples: dict[Hashable, deque[tuple[float, tuple[int, ...]]]] = {}

    def take(self, now: float, counters: Mapping[Hashable, tuple[int, ...]]) -> None:
        """What each has counted by `now` (monotonic seconds). What is not among them any more is forgotten."""
        for name in [name for name in self._samples if name not in counters]:
            del self._samples[name]
        for name, counts in counters.items():
            self._samples.setdefault(name, deque(maxlen=SAMPLES)).append((now, counts))

    def of(self, name: Hashable) -> tuple[float, ...] | None:
        """Each counter's growth a second; `None` before there are two samples."""
        samples = self._samples.get(name)
        if samples is None or len(samples) < 2:
            return None
        (began, first), (ended, last) = samples[0], samples[-1]
        return tuple(_rates(first, last, max(ended - began, 0.001)))


def _rates(first: tuple[int, ...], last: tuple[int, ...], seconds: float) -> Iterator[float]:
    for before, after in zip(first, last, strict=True):
        yield (after - before) / seconds
