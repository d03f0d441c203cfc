"""What the test of spreads runs: a process that feeds, until it is killed or has fed all.

python -m tests.acceptance.feeding URL COUNT RATE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from penstock import Penstock


def feeding_app(url: str) -> Penstock:
    app = Penstock("feeding", broker=url)
    app.task(name="feed")(lambda number: None)
    return app


def numbers(count: int) -> Iterator[int]:
    """Says when it was asked for a first one, and that it cannot be counted."""
    for number in range(count):
        if number == 0:
            print("fed", flush=True)
        yield number


def main() -> None:
    url, count, rate = sys.argv[1:]
    app = feeding_app(url)
    print(app.spread(app.tasks["feed"], numbers(int(count)), name="import", rate=float(rate)), flush=True)


if __name__ == "__main__":
    main()
