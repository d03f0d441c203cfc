"""The app under test. Its database and settings come from the environment that `bench.place.environment` makes."""

from __future__ import annotations

import os
import time
from typing import Literal, cast

from bench.place import DURABILITY, EXPIRES, RATE, SLEEP, URL
from penstock import Penstock, Queue

app = Penstock(
    "bench",
    broker=os.environ[URL],
    durability=cast(Literal["power", "process"], os.environ[DURABILITY]),
    result_expires=float(os.environ[EXPIRES]),
    task_queues=[Queue("default", max_length=1 << 40, max_bytes=1 << 50)],
)


@app.task
def noop(number: int) -> None:
    """Nothing, as a plain function."""


@app.task
async def anoop(number: int) -> None:
    """Nothing, as a coroutine."""


@app.task
def now() -> int:
    """When it ran: nanoseconds of the clock that all processes of this machine share."""
    return time.monotonic_ns()


@app.task
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task
def work() -> None:
    """What takes as long as this worker's environment says: workers of different speed."""
    time.sleep(float(os.environ[SLEEP]))


@app.task(rate_limit=RATE, ignore_result=True)
def limited(number: int) -> None:
    """What waits for its limit."""


@app.task
def one_more(number: int) -> int:
    """A link of a chain."""
    return number + 1


@app.task
def length(values: list[None]) -> int:
    """The body of a chord."""
    return len(values)
