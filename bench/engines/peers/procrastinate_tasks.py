# mypy: ignore-errors
"""Procrastinate over psycopg. It keeps the state of a job, but no results. As a script: a worker."""

import asyncio
import logging
import os

from marks import mark
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from timing import seconds

url = os.environ["BENCH_URL"]
app = App(connector=PsycopgConnector(conninfo=url))


@app.task(name="noop")
async def noop(number):
    mark()


_open = []


def _defer():
    if not _open:
        client = App(connector=SyncPsycopgConnector(conninfo=url))
        client.open()
        if not client.check_connection():
            client.schema_manager.apply_schema()
        task = client.task(name="noop")(noop.func)
        _open.append((client, task))
    return _open[0][1]


def one_by_one(count):
    task = _defer()
    task.defer(number=0)
    return seconds(lambda: [task.defer(number=number) for number in range(count)])


def fill(count):
    task = _defer()

    def calls():
        for start in range(0, count, 1000):
            task.batch_defer(*({"number": number} for number in range(start, min(start + 1000, count))))

    return seconds(calls)


async def work():
    logging.disable(logging.INFO)
    async with app.open_async():
        await app.run_worker_async(concurrency=10, install_signal_handlers=True)


if __name__ == "__main__":
    asyncio.run(work())
