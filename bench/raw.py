"""What we are held against: loops as one would write them by hand on the same library, at the same durability.

The conventional queue has a state column with an index on it. Claim: `UPDATE … RETURNING` of 256 rows. Settle: delete,
and insert the result by the task's 16-byte, time-ordered id. One process, no lock file, no leases, no retries, and a
waiting task is not found by its id: less than any real queue does.
"""

from __future__ import annotations

import os
import random
import select
import time
from pathlib import Path
from typing import Any

import apsw
import msgspec

BATCH = 256
SCHEMA = """
CREATE TABLE task (n INTEGER PRIMARY KEY, id BLOB NOT NULL, state INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX task_state ON task (state);
CREATE TABLE result (id BLOB PRIMARY KEY, value BLOB NOT NULL, done REAL NOT NULL) WITHOUT ROWID;
"""
CLAIM = (
    "UPDATE task SET state = 1 WHERE n IN (SELECT n FROM task WHERE state = 0 ORDER BY n LIMIT ?) RETURNING n, id, body"
)
INSERT = "INSERT INTO task (id, state, body) VALUES (?, 0, ?)"
SYNCHRONOUS = {"process": "normal", "power": "full"}


def connect(path: str, durability: str) -> apsw.Connection:
    connection = apsw.Connection(path)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
    connection.execute("PRAGMA secure_delete = 0")
    connection.execute("PRAGMA cache_size = -32768")
    return connection


def new_id(number: int) -> bytes:
    """16 bytes that grow with time, as those of a UUID of version 7."""
    return (time.time_ns() << 64 | number).to_bytes(16, "big")


def body(number: int) -> bytes:
    return msgspec.msgpack.encode((1, "bench.tasks.noop", ((number,), {}), "default", time.time()))


def fill(path: str, count: int) -> None:
    """A database with `count` waiting tasks."""
    connection = connect(path, "process")
    connection.execute(SCHEMA)
    for start in range(0, count, 10_000):
        with connection:
            connection.executemany(
                INSERT, ((new_id(number), body(number)) for number in range(start, min(start + 10_000, count)))
            )
    connection.close()


def noop(number: int) -> object:
    """The same nothing."""
    return None


def drain(path: str, durability: str) -> float:
    """Tasks a second until the queue is empty."""
    connection = connect(path, durability)
    execute, executemany = connection.execute, connection.executemany
    decode = msgspec.msgpack.Decoder(tuple[int, str, tuple[tuple[int], dict[str, int]], str, float]).decode
    encode = msgspec.json.Encoder().encode
    count, started = 0, time.perf_counter()
    while True:
        execute("BEGIN IMMEDIATE")
        rows: list[Any] = execute(CLAIM, (BATCH,)).fetchall()
        execute("COMMIT")
        if not rows:
            break
        results = []
        for _, task, packed in rows:
            _, _, (args, kwargs), _, _ = decode(packed)
            results.append((task, encode(noop(*args, **kwargs)), time.time()))
        execute("BEGIN IMMEDIATE")
        executemany("DELETE FROM task WHERE n = ?", [(n,) for n, _, _ in rows])
        executemany("INSERT INTO result VALUES (?, ?, ?)", results)
        execute("COMMIT")
        count += len(rows)
    rate = count / (time.perf_counter() - started)
    connection.close()
    return rate


def enqueue(folder: str, durability: str, count: int) -> float:
    """Tasks a second, each inserted and committed by itself."""
    connection = connect(str(Path(folder, "raw.db")), durability)
    connection.execute(SCHEMA)
    execute = connection.execute
    started = time.perf_counter()
    for number in range(count):
        execute(INSERT, (new_id(number), body(number)))
    rate = count / (time.perf_counter() - started)
    connection.close()
    return rate


def wake(count: int) -> list[float]:
    """Milliseconds from a write into a pipe until the idle process that polls it runs: nobody can be faster."""
    there, back = os.pipe(), os.pipe()
    reader = os.fork()
    if not reader:
        poll = select.poll()
        poll.register(there[0], select.POLLIN)
        for _ in range(count):
            poll.poll()
            os.write(back[1], time.monotonic_ns().to_bytes(8, "little"))
            os.read(there[0], 1)
        os._exit(0)
    taken = []
    for _ in range(count):
        time.sleep(random.uniform(0.003, 0.010))
        rung = time.monotonic_ns()
        os.write(there[1], b"x")
        taken.append((int.from_bytes(os.read(back[0], 8), "little") - rung) / 1e6)
    os.waitpid(reader, 0)
    return taken
