"""One byte for each task that ran, in a file whose size the benchmark watches. The same 0.3 µs for every contender."""

import os

_file = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND)


def mark() -> None:
    os.write(_file, b"x")
