"""Where an engine numbers its tasks, the gateway gives ids of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.gateway.private_ids import make_private
from penstock.message import VERSION, Message


def app_on(engine: str, results: str) -> Any:
    def opened(name: str) -> Any:
        return SimpleNamespace(broker=SimpleNamespace(features=SimpleNamespace(engine=name)))

    return SimpleNamespace(engine=opened(engine), results=opened(results))


@pytest.mark.parametrize(
    ("engine", "results", "ours"),
    [
        ("sqlite", "sqlite", False),
        ("redis", "redis", True),
        ("sqlite", "redis", True),
        ("rabbitmq", "postgres", True),
        ("rabbitmq", "rabbitmq", False),
    ],
)
def test_numbered_ids_are_replaced(engine: str, results: str, ours: bool) -> None:
    messages = [Message(VERSION, "t", b""), Message(VERSION, "t", b""), Message(VERSION, "t", b"", id="chosen")]
    make_private(app_on(engine, results), messages)
    first, second, third = (message.id for message in messages)
    assert third == "chosen"
    assert (first is not None) is ours
    assert first != second or not ours
