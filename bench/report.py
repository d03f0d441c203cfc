"""The table on the screen, the JSON beside it, and the page in the manual."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.measure import Result

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
METHOD = Path(__file__).parent / "method.md"
MARK = "<!-- table -->\n"
HEAD = ("measure", "survives", "median", "spread", "unit", "target", "floor", "reached", "foreign CPU")
WIDTHS = (48, 8, 9, 19, 8, 9, 9, 7, 5)


class Run(Struct):
    """One run of the benchmarks, as it is kept."""

    date: str
    machine: dict[str, str]
    seconds: float
    results: list[Result]


def number(value: float) -> str:
    """Three significant digits, or whole thousands."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cells(result: Result) -> tuple[str, ...]:
    goal = result.goal
    sign = "" if goal is None else "≥ " if goal.better == "more" else "≤ "
    spread = f"{number(result.low)} – {number(result.high)}" if len(result.readings) > 1 else ""
    return (
        result.what,
        result.durability,
        number(result.median),
        spread,
        result.unit,
        "" if goal is None else sign + number(goal.target),
        "" if goal is None else sign + number(goal.floor),
        result.verdict,
        f"{result.foreign:.0%}",
    )


def line(fields: tuple[str, ...]) -> str:
    return "  ".join(field.ljust(width) for field, width in zip(fields, WIDTHS, strict=True)).rstrip()


def keep(run: Run, prefix: str = "") -> Path:
    """Write the run as JSON, named by its date."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{prefix}{run.date[:10]}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    return path


def latest(prefix: str = "") -> Run:
    """The newest run that is kept."""
    files = sorted(RESULTS.glob(f"{prefix}[0-9]*.json"))
    if not files:
        raise SystemExit(f"nothing is measured yet: {RESULTS} is empty")
    return msgspec.json.decode(files[-1].read_bytes(), type=Run)


def today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def page(run: Run) -> str:
    """The manual's page: the method, and the run as tables. Losses are in it like the rest."""
    return METHOD.read_text().replace(MARK, "\n".join([*origin(run), "", *table(run.results), ""]))


def origin(run: Run) -> list[str]:
    """When it was measured, on what, with which versions."""
    machine = [f"- **{name}**: {value}" for name, value in run.machine.items()]
    return [f"Measured on {run.date}, in {run.seconds / 60:.0f} minutes.", "", *machine]


def table(results: Sequence[Result]) -> list[str]:
    """The lines of a table, and its notes."""
    rows = [_row(HEAD), _row(("---",) * len(HEAD)), *(_row(_marked(result)) for result in results)]
    notes = [f"- {result.what}: {result.note}" for result in results if result.note]
    return [*rows, *(["", *notes] if notes else [])]


def _marked(result: Result) -> tuple[str, ...]:
    fields = cells(result)
    return (*fields[:7], f"**{fields[7]}**" if fields[7] == "MISSED" else fields[7], fields[8])


def _row(fields: tuple[str, ...]) -> str:
    return "| " + " | ".join(fields) + " |"


def write_page() -> Path:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(latest()))
    return PAGE
