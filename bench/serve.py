"""A worker for `bench.tasks`, as `penstock worker` runs it: `python -m bench.serve --pool prefork --concurrency 2`."""

from __future__ import annotations

import argparse
import importlib
import sys

from penstock.worker import Worker, WorkerOptions


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", default="bench.tasks")
    parser.add_argument("--pool", default="prefork")
    parser.add_argument("--concurrency", type=int, default=2)
    options = parser.parse_args()
    app = importlib.import_module(options.app).app
    return Worker(app, WorkerOptions(pool=options.pool, concurrency=options.concurrency, loglevel="WARNING")).run()


if __name__ == "__main__":
    sys.exit(main())
