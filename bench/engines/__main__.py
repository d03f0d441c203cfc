"""`python -m bench.engines`: measure, print, and write bench/results/engines-<date>.json."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from bench import machine, report
from bench.engines import page
from bench.engines.contest import Contest
from bench.engines.sites import SERVERS
from bench.measure import Result
from bench.place import open_place
from tests.servers import NotInstalled

ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SERVERS), metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--contender", action="append", metavar="NAME", help="such as penstock, raw or celery")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"trials of each contender; {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run? The numbers mean nothing")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing; the manual's page from the JSON")
    options = parser.parse_args()
    if options.write_docs:
        print(f"wrote {page.write()}")
        return 0
    servers = [server for server in SERVERS if not options.only or server in options.only]
    # Ended like this, it still ends the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    whole = not (options.only or options.contender or options.quick)
    return _measure(servers, options.contender, options.rounds, quick=options.quick, whole=whole)


def _measure(servers: list[str], chosen: list[str] | None, rounds: int, *, quick: bool, whole: bool) -> int:
    """Print each number as it comes. 1 when a floor is missed, or a contender failed; a `whole` run is kept."""
    started, results, failures = time.monotonic(), list[Result](), list[str]()
    with open_place(quick=quick) as place:
        about = {**machine.describe(place.folder), **page.versions(servers)}
        print("\n".join(f"{name:<24} {value}" for name, value in about.items()), flush=True)
        for server in servers:
            contest = Contest(place, server, rounds=rounds, chosen=chosen)
            print(f"\n{server}", flush=True)
            try:
                for result in contest.results():
                    results.append(result)
                    print(report.line(report.cells(result)), flush=True)
            except NotInstalled as error:
                contest.failures.append(f"{server}: {error}")
            failures += contest.failures
    seconds = time.monotonic() - started
    print("\n".join(["", *(f"FAILED {failure}" for failure in failures), f"{seconds:.0f} s"]))
    if whole:
        about.update({f"failed {number}": failure for number, failure in enumerate(failures, 1)})
        kept = report.keep(report.Run(report.today(), about, seconds, results), page.PREFIX)
        print(f"wrote {kept}; for the manual: python -m bench.engines --write-docs")
    missed = not quick and any(result.verdict == "MISSED" for result in results)
    return int(missed or bool(failures))


if __name__ == "__main__":
    sys.exit(main())
