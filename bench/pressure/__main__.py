"""`python -m bench.pressure`: measure, print, and write bench/results/pressure-<date>.json."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from bench import report, sitting
from bench.measure import Measure
from bench.pressure import admission, front, overload, sweep
from bench.pressure.picture import picture
from bench.pressure.site import ENGINES

PROGRAM = "python -m bench.pressure"
PREFIX = "pressure-"
METHOD = Path(__file__).parent / "method.md"
PAGE = report.PAGE.with_name("benchmarks-pressure.md")
PICTURE = PAGE.parent / "images" / "pressure-measured.svg"


def measures(engine: str) -> tuple[Measure, ...]:
    return (
        Measure("overload", "three times the capacity", partial(overload.overload, engine=engine)),
        Measure("cpu", "the same with tasks that need the CPU", partial(overload.busy, engine=engine)),
        Measure("sweep", "three bounds at many loads", partial(sweep.sweep, engine=engine)),
        Measure("admission", "what checking a bound costs", admission.admission),
        Measure("gateway", "calls over HTTP", front.front),
    )


def write_page() -> Path:
    run = report.latest(PREFIX)
    made = "\n".join([*report.origin(run), "", *report.table(run.results), ""])
    PAGE.write_text(METHOD.read_text("utf-8").replace(report.MARK, made), "utf-8")
    PICTURE.write_text(picture(run.results), "utf-8")
    return PAGE


def main() -> int:
    parser = sitting.parser(PROGRAM, __doc__, measures(ENGINES[0]))
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="what is put under load; not kept")
    options = parser.parse_args()
    prefix = PREFIX if options.engine == ENGINES[0] else None
    return sitting.sit(options, measures(options.engine), prefix, write_page)


if __name__ == "__main__":
    sys.exit(main())
