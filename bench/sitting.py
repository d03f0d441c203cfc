"""One sitting: options, measures one after the other, a table on the screen, and the JSON that is kept."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import machine, report
from bench.measure import Measure, Result
from bench.place import open_place


def main(program: str, about: str | None, measures: Sequence[Measure], prefix: str, write: Callable[[], Path]) -> int:
    """With the usual options; see `sit`."""
    return sit(parser(program, about, measures).parse_args(), measures, prefix, write)


def parser(program: str, about: str | None, measures: Sequence[Measure]) -> argparse.ArgumentParser:
    """Of the options that all have."""
    names = [measure.name for measure in measures]
    found = argparse.ArgumentParser(prog=program, description=about)
    found.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    found.add_argument("--quick", action="store_true", help="small sizes: does it run? The numbers mean nothing")
    found.add_argument("--write-docs", action="store_true", help="measure nothing; the manual's page from the JSON")
    return found


def sit(options: argparse.Namespace, measures: Sequence[Measure], prefix: str | None, write: Callable[[], Path]) -> int:
    """`write` makes the manual's page of the newest run that is kept, whose file begins with `prefix`; without one none
    is kept. Returns the exit code."""
    if options.write_docs:
        print(f"wrote {write()}")
        return 0
    # Ended like this, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    chosen = [measure for measure in measures if not options.only or measure.name in options.only]
    return _measure(chosen, prefix if not (options.only or options.quick) else None, quick=options.quick)


def _measure(chosen: Sequence[Measure], prefix: str | None, *, quick: bool) -> int:
    """Print each number as it comes. 1 when a floor is missed, or a measure failed; with a `prefix` the run is kept."""
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
    if prefix is not None and not failed:
        kept = report.keep(report.Run(report.today(), about, seconds, results), prefix)
        print(f"wrote {kept}; for the manual: --write-docs")
    missed = not quick and any(result.verdict == "MISSED" for result in results)
    return int(failed > 0 or missed)
