# mypy: ignore-errors
"""taskiq on a Redis stream, with or without (`BENCH_RESULTS` empty) results in Redis."""

import asyncio
import os

from marks import mark
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker
from timing import sampled, seconds

url = os.environ["BENCH_URL"]
broker = RedisStreamBroker(url)
if os.environ["BENCH_RESULTS"]:
    broker = broker.with_result_backend(RedisAsyncResultBackend(url, result_ex_time=86_400))


@broker.task
async def noop(number: int) -> None:
    mark()


_runner = asyncio.Runner()
_started = []


def _run(call):
    if not _started:
        _runner.run(broker.startup())
        _started.append(True)
    return _runner.run(call)


def one_by_one(count):
    async def calls():
        for number in range(count):
            await noop.kiq(number)

    _run(noop.kiq(0))
    return seconds(lambda: _run(calls()))


def fill(count):
    """50 at a time: it has no bulk call."""

    async def calls():
        for start in range(0, count, 50):
            await asyncio.gather(*(noop.kiq(number) for number in range(start, min(start + 50, count))))

    return seconds(lambda: _run(calls()))


def latency(count):
    async def call_and_get():
        task = await noop.kiq(0)
        await task.wait_result(check_interval=0.001, timeout=10)

    return sampled(lambda: _run(call_and_get()), count)
