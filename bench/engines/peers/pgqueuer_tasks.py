# mypy: ignore-errors
"""PgQueuer over asyncpg on uvloop. It keeps a log of ended jobs, but no results. As a script: a worker."""

import asyncio
import logging
import os
import signal
from datetime import timedelta

import asyncpg
import uvloop
from marks import mark
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from timing import seconds

BATCH = 1000
_runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
_open = []


async def _connect():
    connection = await asyncpg.connect(os.environ["BENCH_URL"])
    queries = Queries(AsyncpgDriver(connection))
    if not await connection.fetchval("SELECT to_regclass('pgqueuer')"):
        await queries.install()
    return queries


def _queries():
    if not _open:
        _open.append(_runner.run(_connect()))
    return _open[0]


def one_by_one(count):
    queries = _queries()

    async def calls():
        for number in range(count):
            await queries.enqueue("noop", b"%d" % number)

    _runner.run(queries.enqueue("noop", b"0"))
    return seconds(lambda: _runner.run(calls()))


def fill(count):
    queries = _queries()

    async def calls():
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            await queries.enqueue(["noop"] * len(numbers), [b"%d" % number for number in numbers], [0] * len(numbers))

    return seconds(lambda: _runner.run(calls()))


async def work():
    logging.disable(logging.WARNING)
    connection = await asyncpg.connect(os.environ["BENCH_URL"])
    queue = PgQueuer.from_asyncpg_connection(connection)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queue.shutdown.set)

    @queue.entrypoint("noop")
    async def noop(job):
        mark()

    await queue.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=5))


if __name__ == "__main__":
    uvloop.run(work())
