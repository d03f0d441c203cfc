"""A copy of a database, which comes without a log, is opened like any other."""

import sqlite3
from pathlib import Path

from penstock.engines.sqlite import open_engine
from penstock.message import Message


def test_a_vacuumed_copy(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/queue.db")
    engine.run(engine.broker.publish([Message(1, "t", b"[]")], 5))
    with sqlite3.connect(tmp_path / "queue.db") as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    connection.close()
    copy = open_engine(f"sqlite:///{tmp_path}/copy.db")
    assert copy.run(copy.broker.depth("default")) == 1
