"""PostgreSQL: one statement a batch, by asyncpg. As a script: a worker."""

from __future__ import annotations

import asyncio
import os
import time

import asyncpg
import uvloop

from bench.engines.peers.timing import seconds
from bench.engines.raw.work import BATCH, BULK, body, new_id, run

SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id bytea NOT NULL, state int NOT NULL DEFAULT 0, body bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS waiting ON task (n) WHERE state = 0;
CREATE TABLE IF NOT EXISTS result (id bytea PRIMARY KEY, value bytea NOT NULL, done double precision NOT NULL);
"""
STEP = f"""
WITH ended AS (DELETE FROM task WHERE n = ANY($1::bigint[])),
     kept AS (INSERT INTO result SELECT * FROM unnest($2::bytea[], $3::bytea[], $4::double precision[])),
     next AS (SELECT n FROM task WHERE state = 0 ORDER BY n LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
UPDATE task SET state = 1 FROM next WHERE task.n = next.n RETURNING task.n, task.id, task.body
"""
COLUMNS = ("id", "body")
_runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def open_queue() -> asyncpg.Connection:
    connection = await asyncpg.connect(os.environ["BENCH_URL"])
    await connection.execute(SCHEMA)
    return connection


def one_by_one(count: int) -> float:
    connection = _runner.run(open_queue())

    async def calls() -> None:
        insert = await connection.prepare("INSERT INTO task (id, body) VALUES ($1, $2)")
        for number in range(count):
            await insert.fetch(new_id(), body(number))

    return seconds(lambda: _runner.run(calls()))


def fill(count: int) -> float:
    connection = _runner.run(open_queue())

    async def calls() -> None:
        for start in range(0, count, BULK):
            rows = [(new_id(), body(number)) for number in range(start, min(start + BULK, count))]
            await connection.copy_records_to_table("task", records=rows, columns=COLUMNS)

    return seconds(lambda: _runner.run(calls()))


async def work() -> None:
    connection = await open_queue()
    step = await connection.prepare(STEP)
    places: list[int] = []
    tasks: list[bytes] = []
    values: list[bytes] = []
    while True:
        rows = await step.fetch(places, tasks, values, [time.time()] * len(places))
        if not rows:
            await asyncio.sleep(0.05)
        places = [row[0] for row in rows]
        tasks = [row[1] for row in rows]
        values = [run(row[2]) for row in rows]


if __name__ == "__main__":
    uvloop.run(work())
