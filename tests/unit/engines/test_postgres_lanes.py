"""What a process remembers of lanes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from penstock.engines.postgres import lanes
from penstock.engines.postgres.statements import Route


class Server:
    """Gives each lane that is asked for the next number."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def fetchrow(self, sql: str, *parameters: Any) -> tuple[int, int]:
        self.asked.append(parameters[3])
        return 1, len(self.asked)


def routes(*partitions: str) -> set[Route]:
    return {Route("", "default", 5, partition) for partition in partitions}


def test_as_many_lanes_are_known_as_fit_and_the_rest_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST", 3)
    known, server = lanes.Lanes("penstock", ()), Server()

    def learn(*partitions: str) -> None:
        asyncio.run(known.learn(cast(Any, server), routes(*partitions), {}))
        assert known.known(routes(*partitions))
        assert len(known.by_route) <= 3

    learn("a", "b")
    learn("c")
    learn("d")
    assert not known.known(routes("a"))
    learn("a", "d")
    assert sorted(server.asked) == ["a", "a", "b", "c", "d"]


def test_a_batch_is_known_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST", 2)
    known = lanes.Lanes("penstock", ())
    asyncio.run(known.learn(cast(Any, Server()), routes("a", "b", "c"), {}))
    assert known.known(routes("a", "b", "c"))
