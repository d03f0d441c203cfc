"""`python -m bench`: measure, print, and write bench/results/<date>.json."""

from __future__ import annotations

import argparse
import sys
import time

from bench import beat, crowd, drain, enqueue, idle, lanes, latency, machine, mixed, report, soak, startup
from bench.measure import Measure, Result
from bench.place import open_place

MEASURES: tuple[Measure, ...] = (
    *drain.MEASURES,
    *soak.MEASURES,
    *latency.MEASURES,
    *enqueue.MEASURES,
    *crowd.MEASURES,
    *lanes.MEASURES,
    *mixed.MEASURES,
    *idle.MEASURES,
    *beat.MEASURES,
    *startup.MEASURES,
)


def main() -> int:
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run? The numbers mean nothing")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing; docs/benchmarks.md from the JSON")
    options = parser.parse_args()
    if options.write_docs:
        print(f"wrote {report.write_page()}")
        return 0
    chosen = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    return _measure(chosen, whole=not options.only, quick=options.quick)


def _measure(chosen: list[Measure], *, whole: bool, quick: bool) -> int:
    """Print each number as it comes. 1 when a floor is missed, or a measure failed."""
    started, results, failed = time.monotonic(), list[Result](), 0
    with open_place(quick=quick) as place:
        about = machine.describe(place.folder)
        print("\n".join(f"{name:<18} {value}" for name, value in about.items()))
        print("\n" + report.line(report.HEAD))
        for measure in chosen:
            try:
                for result in measure.run(place):
                    results.append(result)
                    print(report.line(report.cells(result)), flush=True)
            except Exception as error:
                failed += 1
                print(f"{measure.name} FAILED: {error}", flush=True)
    seconds = time.monotonic() - started
    print(f"\n{seconds:.0f} s")
    if quick:
        return int(failed > 0)
    if whole and not failed:
        kept = report.keep(report.Run(report.today(), about, seconds, results))
        print(f"wrote {kept}; for the manual: python -m bench --write-docs")
    return int(failed > 0 or any(result.verdict == "MISSED" for result in results))


if __name__ == "__main__":
    sys.exit(main())
