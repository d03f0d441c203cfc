"""What a measure gives: numbers with their spread, held against a target and a floor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from bench.place import Place

Better = Literal["more", "less"]


class Goal(Struct, frozen=True):
    """`target` is what is wanted, `floor` what must hold."""

    target: float
    floor: float
    better: Better = "more"

    def verdict(self, value: float) -> str:
        sign = 1 if self.better == "more" else -1
        if sign * value >= sign * self.target:
            return "target"
        return "floor" if sign * value >= sign * self.floor else "MISSED"


class Reading(Struct, frozen=True):
    """One repetition. `foreign`: the share of the machine's CPU time that other programs took meanwhile."""

    value: float
    foreign: float = 0.0


class Result(Struct, frozen=True, omit_defaults=True):
    """One line of the table. `readings` are those that count, `loud` those that others' work spoilt; of `points` a
    picture is drawn."""

    name: str
    what: str
    unit: str
    readings: tuple[Reading, ...]
    goal: Goal | None = None
    durability: str = ""
    note: str = ""
    loud: tuple[Reading, ...] = ()
    points: tuple[tuple[float, float], ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(reading.value for reading in self.readings)

    @property
    def low(self) -> float:
        return min(reading.value for reading in self.readings)

    @property
    def high(self) -> float:
        return max(reading.value for reading in self.readings)

    @property
    def foreign(self) -> float:
        """The largest share that counts."""
        return max(reading.foreign for reading in self.readings)

    @property
    def verdict(self) -> str:
        return "" if self.goal is None else self.goal.verdict(self.median)


class Measure(Struct, frozen=True):
    """A group of numbers that are measured together."""

    name: str
    about: str
    run: Callable[[Place], Iterator[Result]]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ratios(ours: Sequence[Reading], others: Sequence[Reading]) -> tuple[Reading, ...]:
    """Ours divided by the other's, repetition by repetition: neighbours in time share the machine's mood."""
    return tuple(
        Reading(one.value / other.value, max(one.foreign, other.foreign))
        for one, other in zip(ours, others, strict=True)
    )
