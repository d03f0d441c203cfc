"""`python -m bench.broker`: measure, print, and write bench/results/broker-<date>.json."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from bench import machine, report
from bench.broker import beside_redis, crowd, drain, quick, share
from bench.measure import Measure, Result
from bench.place import open_place

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


def main() -> int:
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(prog="python -m bench.broker", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run? The numbers mean nothing")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing; the manual's page from the JSON")
    options = parser.parse_args()
    if options.write_docs:
        print(f"wrote {write_page()}")
        return 0
    # Ended like this, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    chosen = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    return _measure(chosen, whole=not (options.only or options.quick), quick=options.quick)


def write_page() -> Path:
    run = report.latest(PREFIX)
    PAGE.write_text(
        METHOD.read_text().replace(report.MARK, "\n".join([*report.origin(run), "", *report.table(run.results), ""]))
    )
    return PAGE


def _measure(chosen: list[Measure], *, whole: bool, quick: bool) -> int:
    """Print each number as it comes. 1 when a floor is missed, or a measure failed; a `whole` run is kept."""
    started, results, failed = time.monotonic(), list[Result](), 0
    with open_place(quick=quick) as place:
        about = machine.describe(place.folder)
        print("\n".join(f"{name:<18} {value}" for name, value in about.items()), flush=True)
        print("\n" + report.line(report.HEAD), flush=True)
        for measure in chosen:
            try:
                for result in measure.run(place):
                    results.append(result)
                    print(report.line(report.cells(result)), flush=True)
            except Exception as error:
                failed += 1
                print(f"{measure.name} FAILED: {error!r}", flush=True)
    seconds = time.monotonic() - started
    print(f"\n{seconds:.0f} s")
    if whole and not failed:
        print(f"wrote {report.keep(report.Run(report.today(), about, seconds, results), PREFIX)}")
    missed = not quick and any(result.verdict == "MISSED" for result in results)
    return int(failed > 0 or missed)


if __name__ == "__main__":
    sys.exit(main())
