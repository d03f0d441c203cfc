"""The picture of a sweep: the wait over time, and goodput and p99 by load, measured and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from bench.measure import Result
from bench.pressure.sweep import LOADS, POLICIES
from tools import panel
from tools.panel import Line, Panel, percent

COLOURS = ("#b3261e", "#5b7083", "#11734b")
CROWDED = 0.8
"""A load whose mark has no room."""
LONGEST = 20
"""Seconds of the wait over time that are shown."""


def picture(results: Sequence[Result]) -> str:
    found = {result.name: result.points for result in results}
    seconds = {str(at): float(at) for at in range(0, LONGEST + 1, 5)}
    loads = {f"{load:.0%}": load for load in LOADS if load != CROWDED}
    waits = {"0.1": 0.1, "1": 1.0, "10": 10.0}
    overtime = Panel(60, f"seconds waited, by when it ended, at {LOADS[-1]:.0%}", seconds, waits, _logarithm)
    goodput = Panel(450, "goodput, % of capacity", loads, {"0": 0.0, "50": 0.5, "100": 1.0}, percent)
    p99 = Panel(840, "p99 of what is accepted, seconds", loads, waits, _logarithm)
    body = list(overtime.draw(_lines(found, "overtime")))
    for one, name in ((goodput, "goodput"), (p99, "p99")):
        body += one.draw([*_lines(found, f"{name}-simulated"), *_lines(found, name, dots=True)])
    for number, policy in enumerate(POLICIES.values()):
        x = 60 + number * 170
        body.append(f'<rect x="{x}" y="318" width="14" height="4" fill="{COLOURS[number]}"/>')
        body.append(f'<text x="{x + 20}" y="324">{policy.title}</text>')
    body.append('<text x="650" y="324">dots: measured with real workers; lines by load: simulated</text>')
    return panel.picture(1200, body)


def _lines(found: dict[str, tuple[tuple[float, float], ...]], name: str, *, dots: bool = False) -> list[Line]:
    return [
        Line(colour, [point for point in found[f"{name}/{policy}"] if point[0] <= LONGEST], dots)
        for colour, policy in zip(COLOURS, POLICIES, strict=True)
    ]


def _logarithm(value: float) -> float:
    """From 0.01 to 100 seconds."""
    return (log10(min(100.0, max(value, 0.01))) + 2) / 4
