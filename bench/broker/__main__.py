"""`python -m bench.broker`: measure, print, and write bench/results/broker-<date>.json."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import report, sitting
from bench.broker import beside_redis, crowd, drain, quick, share
from bench.measure import Measure

MEASURES: tuple[Measure, ...] = (
    *drain.MEASURES,
    *crowd.MEASURES,
    *quick.MEASURES,
    *beside_redis.MEASURES,
    *share.MEASURES,
)
PREFIX = "broker-"
PAGE = report.PAGE.with_name("benchmarks-broker.md")
METHOD = Path(__file__).parent / "method.md"


def write_page() -> Path:
    run = report.latest(PREFIX)
    PAGE.write_text(
        METHOD.read_text().replace(report.MARK, "\n".join([*report.origin(run), "", *report.table(run.results), ""]))
    )
    return PAGE


if __name__ == "__main__":
    sys.exit(sitting.main("python -m bench.broker", __doc__, MEASURES, PREFIX, write_page))
