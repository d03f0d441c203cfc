"""Penstock: the tasks, which `penstock worker` finds here, and the client's part; see `peers.answer`."""

from __future__ import annotations

import os
import time

from bench.engines.peers.marks import mark
from bench.engines.peers.timing import sampled, seconds
from penstock import Penstock, Queue
from penstock.result import AsyncResult

CHUNK = 10_000
URL = os.environ["BENCH_URL"]
app = Penstock(
    "bench",
    broker=URL,
    result_backend="rpc://" if URL.startswith("amqp") else None,
    task_queues=[Queue("default", max_length=1 << 31, max_bytes=1 << 40)],
)


@app.task
def noop(number: int) -> None:
    mark()


_last: list[AsyncResult[None]] = []


def one_by_one(count: int) -> float:
    noop.delay(0)
    delay = noop.delay

    def calls() -> None:
        for number in range(count):
            delay(number)

    return seconds(calls)


def fill(count: int) -> float:
    def calls() -> None:
        for start in range(0, count, CHUNK):
            results = noop.delay_many((number,) for number in range(start, min(start + CHUNK, count)))
            _last[:] = results[-100:]

    return seconds(calls)


def flood(seconds: float) -> int:
    """How many were published and confirmed in so long."""
    count, ended = 0, time.monotonic() + seconds
    while time.monotonic() < ended:
        count += len(noop.delay_many((number,) for number in range(1_000)))
    return count


def latency(count: int) -> list[float]:
    return sampled(lambda: noop.delay(0).get(10), count)


def kept() -> int:
    """How many of the last 100 results of `fill` are there; raises when one failed."""
    return sum(result.get(10) is None for result in _last)
