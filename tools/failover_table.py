"""Make the table of failovers in docs/guides/high-availability.md from the newest run of `make test-ha`.

.venv/bin/python -m tools.failover_table
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guides" / "high-availability.md"
BEGIN, END = "<!-- made by tools/failover_table.py -->\n", "<!-- end of what is made -->\n"
HEADS = ("cluster", "the leader", "times", "median s", "longest s", "accepted", "lost", "settled twice", "ran twice")
FAULTS = {"SIGKILL": "is killed", "SIGSTOP": "hangs", "partition": "is cut off"}


def newest() -> Path:
    found = sorted((ROOT / "bench" / "results").glob("ha-*.json"))
    if not found:
        raise SystemExit("nothing is measured yet: run make test-ha")
    return found[-1]


def lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    yield HEADS
    yield ("---",) * len(HEADS)
    for row in sorted(rows, key=lambda row: (row["engine"], list(FAULTS).index(row["fault"]))):
        yield (
            row["engine"],
            FAULTS[row["fault"]],
            str(len(row["gaps"])),
            f"{row['median']:.1f}",
            f"{max(row['gaps']):.1f}",
            f"{row['accepted']:,}",
            f"{row['lost']:,}",
            f"{row['double_commits']:,}",
            f"{row['repeated']:,}",
        )


def with_table(text: str, results: Path) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: there is no place for the table, between {BEGIN.strip()} and {END.strip()}")
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines(json.loads(results.read_text("utf-8"))))
    return f"{before}{begin}\nMeasured on {results.stem.removeprefix('ha-')}:\n\n{table}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), newest()), "utf-8")
