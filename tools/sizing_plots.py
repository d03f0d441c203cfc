"""Simulate what bounds do to a queue under load; put the table into the sizing guide, and draw its picture.

.venv/bin/python -m tools.sizing_plots
"""

from __future__ import annotations

from collections.abc import Callable
from math import log10
from pathlib import Path
from types import MappingProxyType

from penstock.pressure.simulation import Bound, Governed, Outcome, simulate, slower, steady
from tools import panel
from tools.panel import Line, Panel, percent

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "guides" / "sizing.md", DOCS / "images" / "pressure.svg"
BEGIN, END = "<!-- made by tools/sizing_plots.py -->\n", "<!-- end of what is made -->\n"
MEAN, THREADS, LATENCY = 0.04, 8, 2.0
CAPACITY = THREADS / MEAN
LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
SECONDS, WARMUP, SLOWER = 60.0, 20.0, 4.0
POLICIES: MappingProxyType[str, Callable[[], Bound]] = MappingProxyType(
    {
        "unbounded": Bound,
        "10,000 tasks": lambda: Bound(10_000),
        "400 tasks": lambda: Bound(400),
        "20 tasks": lambda: Bound(20),
        "max_latency 2 s": lambda: Governed(LATENCY),
    }
)
COLOURS = ("#b3261e", "#c77700", "#5b7083", "#7a4fb5", "#11734b")

Curves = dict[str, list[Outcome]]


def steady_load(load: float, bound: Bound) -> Outcome:
    return simulate(
        bound,
        arrivals=CAPACITY * load,
        threads=THREADS,
        service=steady(MEAN),
        patience=LATENCY,
        seconds=SECONDS,
        capacity=CAPACITY,
        warmup=WARMUP,
    )


def slowed(bound: Bound) -> Outcome:
    """At 80 % of capacity; then each transaction takes four times as long. Counted from 20 s after that on."""
    return simulate(
        bound,
        arrivals=CAPACITY * 0.8,
        threads=THREADS,
        service=slower(MEAN, SLOWER, 20.0),
        patience=LATENCY,
        seconds=SECONDS + 20.0,
        capacity=CAPACITY / SLOWER,
        warmup=40.0,
    )


def curves() -> Curves:
    return {name: [steady_load(load, make()) for load in LOADS] for name, make in POLICIES.items()}


def tables(found: Curves) -> str:
    heads = ["bound", *(f"{load:.0%} load" for load in LOADS), f"{SLOWER:.0f} × slower"]
    rows = [[name, *map(cell, outcomes), cell(slowed(POLICIES[name]()))] for name, outcomes in found.items()]
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(one: Outcome) -> str:
    return f"{one.goodput:.0%}, {one.p99:.2g} s" if one.p99 < 10 else f"{one.goodput:.0%}, {one.p99:.0f} s"


def with_tables(page: str, made: str) -> str:
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def picture(found: Curves) -> str:
    """Goodput and p99 by load, side by side."""
    across = {f"{load:.0%}": load for load in LOADS}
    goodput = Panel(60, "goodput, % of capacity", across, {"0": 0.0, "50": 0.5, "100": 1.0}, percent)
    up = {"0.1": 0.1, "1": 1.0, "10": 10.0}
    p99 = Panel(450, "p99 of what is accepted, seconds", across, up, _logarithm)
    body = [*goodput.draw(_lines(found, lambda one: one.goodput)), *p99.draw(_lines(found, lambda one: one.p99))]
    for number, name in enumerate(found):
        x = 60 + number * 150
        body.append(f'<rect x="{x}" y="318" width="14" height="4" fill="{COLOURS[number]}"/>')
        body.append(f'<text x="{x + 20}" y="324">{name}</text>')
    return panel.picture(820, body)


def _lines(found: Curves, value: Callable[[Outcome], float]) -> list[Line]:
    return [
        Line(colour, [(load, value(one)) for load, one in zip(LOADS, outcomes, strict=True)])
        for colour, outcomes in zip(COLOURS, found.values(), strict=True)
    ]


def _logarithm(value: float) -> float:
    return (log10(max(value, 0.05)) + 1.3) / 3.3


def main() -> None:
    found = curves()
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), tables(found)), "utf-8")
    PICTURE.write_text(picture(found), "utf-8")


if __name__ == "__main__":
    main()
