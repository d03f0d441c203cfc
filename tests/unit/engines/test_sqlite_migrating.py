"""A file of an older schema is brought up when it is opened, with all that it has."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import apsw
import pytest

from penstock.broker import Accepted, Conflict, Demand
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.database import SCHEMA
from penstock.engines.sqlite.files import APPLICATION_ID
from penstock.message import Limit, Message, Unique, pack
from penstock.queue import Queue

W = "0" * 32


def old_file(path: Path, version: int) -> None:
    """What a queue with two ready tasks, one of them unique, and a leased one was in that schema."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA journal_mode = wal")
    for number in range(1, version + 1):
        script = importlib.resources.files("penstock.engines.sqlite").joinpath(f"migrations/{number:04}.sql")
        db.execute(script.read_text())
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}")
    db.execute("INSERT INTO meta VALUES ('secret', ?)", (b"s" * 32,))
    base = (1 << 45) + 1
    body = pack(Message(1, "t", b"[]"))
    db.execute("INSERT INTO queue (id, namespace, name) VALUES (1, '', 'default')")
    db.execute(
        "INSERT INTO lane (id, queue, priority, partition, head, tail, parked, depth, bytes, delayed, enqueued,"
        " settled, max_length, max_bytes) VALUES (-1, 1, -1, '', 0, 0, 0, 3, ?, 0, 3, 0, 1000, 1000000)",
        (3 * len(body),),
    )
    db.execute(
        "INSERT INTO lane (id, queue, priority, partition, head, tail, parked, eligible, claims)"
        " VALUES (1, 1, 5, '', ?, ?, ?, 1, 1)",
        (base + 1, base + 3, base + (1 << 44)),
    )
    db.executemany("INSERT INTO task VALUES (?, NULL, 0, ?)", [(base + n, body) for n in range(3)])
    db.execute("INSERT INTO lease (token, lo, hi, worker, until) VALUES (?, ?, ?, ?, 0)", (1 << 18 | 1, base, base, W))
    db.execute("INSERT INTO unique_key (name, id) VALUES ('held', ?)", (base + 1,))
    db.close()


@pytest.mark.parametrize("version", [1, 2, 4])
def test_an_old_file_goes_on(tmp_path: Path, version: int) -> None:
    assert version < SCHEMA
    old_file(tmp_path / "queue.db", version)
    engine = open_engine(f"sqlite:///{tmp_path}/queue.db", durability="process")
    held, limited = Unique("held"), Limit("key", concurrency=1)
    messages = [Message(1, "t", b"[]", guards=(guard,)) for guard in (held, limited, limited)]
    answers = engine.run(engine.broker.publish(messages, 5))
    assert [type(answer) for answer in answers] == [Conflict, Accepted, Accepted]
    engine.run(engine.coordinator.reap())
    found = engine.run(engine.broker.step([], Demand(("default",), 10, W))).deliveries
    assert len(found) == 4, "what ran, what was ready, and one of two that are limited"
    engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in found], None))
    [info] = engine.run(engine.inspect.queues())
    assert (info.depth, info.ready, info.leased) == (1, 1, 0)
    engine.close()


def test_a_queue_of_an_old_file_can_shed(tmp_path: Path) -> None:
    """Its lanes were never looked at, and what had come due is not told from what came back."""
    old_file(tmp_path / "queue.db", 4)
    queue = Queue("default", 3, overflow="drop-oldest")
    engine = open_engine(f"sqlite:///{tmp_path}/queue.db", durability="process", queues=[queue])
    answers = [engine.run(engine.broker.publish([Message(1, "t", b"[]")], 5))[0] for _ in range(2)]
    assert [type(answer) for answer in answers] == [Accepted, Accepted]
    [info] = engine.run(engine.inspect.queues())
    assert (info.depth, info.ready, info.leased, info.dead, info.shed) == (3, 2, 1, 2, 2)
    engine.close()
