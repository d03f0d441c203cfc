"""`python -m bench`: measure, print, and write bench/results/<date>.json."""

from __future__ import annotations

import sys

from bench import (
    beat,
    canvas,
    crowd,
    drain,
    enqueue,
    idle,
    lanes,
    latency,
    limits,
    mixed,
    report,
    sitting,
    soak,
    startup,
)
from bench.measure import Measure

MEASURES: tuple[Measure, ...] = (
    *drain.MEASURES,
    *soak.MEASURES,
    *latency.MEASURES,
    *enqueue.MEASURES,
    *crowd.MEASURES,
    *lanes.MEASURES,
    *mixed.MEASURES,
    *limits.MEASURES,
    *canvas.MEASURES,
    *idle.MEASURES,
    *beat.MEASURES,
    *startup.MEASURES,
)


if __name__ == "__main__":
    sys.exit(sitting.main("python -m bench", __doc__, MEASURES, "", report.write_page))
