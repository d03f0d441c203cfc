"""Put each engine's numbers into its page, from the newest run of `make bench-engines`.

.venv/bin/python -m tools.engine_numbers
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
ENGINES = {"Redis": "redis", "PostgreSQL": "postgresql", "RabbitMQ": "rabbitmq"}
"""As the benchmark names it → its page."""
BEGIN, END = "<!-- made by tools/engine_numbers.py -->\n", "<!-- end of what is made -->\n"
HEADS = ("measure", "median", "unit", "target", "floor", "foreign CPU")
"""Foreign: what other programs took of the machine in the loudest trial."""


def newest() -> Path:
    found = sorted((ROOT / "bench" / "results").glob("engines-*.json"))
    if not found:
        raise SystemExit("nothing is measured yet: run make bench-engines")
    return found[-1]


def lines(results: list[dict[str, Any]], engine: str) -> Iterator[tuple[str, ...]]:
    """What Penstock reached, and beside whom; the peers' own numbers are in the page of the benchmarks."""
    yield HEADS
    yield ("---",) * len(HEADS)
    for one in results:
        name, _, what = one["what"].partition(", ")
        if name != engine or not (what.endswith(": Penstock") or "÷" in what):
            continue
        value = median(reading["value"] for reading in one["readings"])
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        foreign = max(reading["foreign"] for reading in one["readings"])
        goal = one["goal"] or {}
        sign = "≥" if goal.get("better") == "more" else "≤"
        wanted = (f"{sign} {goal[key]:,}" if key in goal else "" for key in ("target", "floor"))
        yield (what.removesuffix(": Penstock"), shown, one["unit"], *wanted, f"{foreign:.0%}")


def with_numbers(text: str, engine: str, results: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(
            f"the page of {engine} has no place for its numbers, between {BEGIN.strip()} and {END.strip()}"
        )
    run = json.loads(results.read_text("utf-8"))
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines(run["results"], engine))
    said = f"Measured on {run['date']}. Settings, peers and spread: [benchmarks](../benchmarks-engines.md)."
    return f"{before}{begin}\n{said}\n\n{table}\n{end}{after}"


if __name__ == "__main__":
    for name, page in ENGINES.items():
        path = ROOT / "docs" / "engines" / f"{page}.md"
        path.write_text(with_numbers(path.read_text("utf-8"), name, newest()), "utf-8")
