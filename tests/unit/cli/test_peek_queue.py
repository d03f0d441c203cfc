"""What `penstock peek` shows."""

from __future__ import annotations

import click

from penstock.broker import Peeked
from penstock.cli.peek_queue import shown
from penstock.message import Message


def peeked(partition: str) -> Peeked:
    return Peeked("1", "ready", Message(1, "t", b"[[7],{}]", partition=partition))


def test_partitions_are_shown_where_there_are_any() -> None:
    assert "partition" not in shown([peeked("")], 0.0)
    lines = click.unstyle(shown([peeked("flood"), peeked(""), Peeked("2", "ready", None)], 0.0)).splitlines()
    assert lines[0].split()[-2:] == ["partition", "arguments"]
    assert "flood" in lines[1]
