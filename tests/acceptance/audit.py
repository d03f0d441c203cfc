"""What the database file itself shows once all is quiet: where every task is, and whether the file's counts add up."""

from __future__ import annotations

import re
from pathlib import Path

import apsw

from penstock.errors import DecodeError
from penstock.message import unpack
from penstock.testing.checkers import Remains

NUMBER = re.compile(rb"-?\d+")


def read_remains(path: Path) -> Remains:
    """Tasks by the first number in their bodies, with every inner count checked on the way."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("BEGIN")  # one snapshot, while others go on
        check_counts(connection)
        return _remains(connection)
    finally:
        connection.close()


def read_names(path: Path) -> Remains:
    """The same of a file whose counts may be wrong."""
    connection = apsw.Connection(str(path))
    try:
        return _remains(connection)
    finally:
        connection.close()


def _remains(connection: apsw.Connection) -> Remains:
    waiting = [body for (body,) in connection.execute("SELECT body FROM task")]
    dead = [body for (body,) in connection.execute("SELECT body FROM dead")]
    ended = [value for (value,) in connection.execute("SELECT value FROM result_list WHERE state = 'SUCCESS'")]
    return Remains(frozenset(map(str, ended)), _names(dead), _names(waiting))


def check_counts(connection: apsw.Connection) -> None:
    """The file is whole; depth, bytes and ranges say what the rows say."""
    execute = connection.execute
    assert execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows, size, delayed = execute("SELECT count(*), coalesce(sum(length(body)), 0), count(due) FROM task").fetchall()[0]
    counted = execute(
        "SELECT coalesce(sum(depth), 0), coalesce(sum(bytes), 0), coalesce(sum(delayed), 0) FROM queue_stats"
    ).fetchall()[0]
    assert (rows, size, delayed) == counted, f"rows, bytes, delayed are {rows, size, delayed}, counted {counted}"
    repeated = execute(
        "SELECT count(*) FROM returned a JOIN returned b ON a.n < b.n AND a.lo <= b.hi AND b.lo <= a.hi"
    ).fetchall()
    assert repeated == [(0,)], "a task came back twice"
    missing = execute(  # ready tasks of each lane: new ones from the head on, and those that came back
        "SELECT l.id FROM lane l WHERE (SELECT count(*) FROM task WHERE id >= l.head AND id < l.tail AND due IS NULL)"
        " <> l.tail - l.head - l.holes"
        " OR l.back <> (SELECT coalesce(sum(hi - lo + 1), 0) FROM returned WHERE lane = l.id)"
        " OR (l.eligible > 0) <> (l.head < l.tail OR l.back > 0)"
    ).fetchall()
    assert missing == [], f"lanes {missing} do not have what they say"


def _names(bodies: list[bytes]) -> frozenset[str]:
    names = []
    for body in bodies:
        try:
            number = NUMBER.search(unpack(body).body)
            names.append(number[0].decode() if number else "without a number")
        except DecodeError as error:
            names.append(f"unreadable: {error}")
    return frozenset(names)
