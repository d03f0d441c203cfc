"""Bounds that are read from the shared state, with a clock in hand."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from penstock.contrib.clock import TravelClock
from penstock.engines.memory import open_engine
from penstock.errors import BrokerUnavailable
from penstock.pressure.bounds import EVERY, REST, Followed, bound_name, followed, store
from penstock.queue import Bound

GRACE = 300.0


class State:
    """A server of shared state that may be away."""

    def __init__(self) -> None:
        self._there = open_engine("memory://")
        self.away = False
        self.asked = 0

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        return await self._there.coordinator.acquire(name, holder, ttl)

    async def resign(self, name: str, holder: str) -> None:
        await self._there.coordinator.resign(name, holder)

    async def get(self, key: str) -> tuple[bytes, int] | None:
        self.asked += 1
        if self.away:
            raise BrokerUnavailable("away")
        return await self._there.coordinator.get(key)

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        return await self._there.coordinator.put(key, value, if_version)


class Stage:
    def __init__(self) -> None:
        self.clock, self.state = TravelClock(1_700_000_000.0), State()
        self.bounds = Followed(self.state, self.clock, GRACE)

    def tell(self, tasks: int) -> None:
        asyncio.run(store(self.state, "", "mail", Bound(tasks, 4.0, self.clock.time())))

    @property
    def tasks(self) -> int | None:
        found = asyncio.run(self.bounds.of("mail", ""))
        return found.tasks if found is not None else None


def test_it_is_read_again_after_a_while() -> None:
    stage = Stage()
    assert stage.tasks is None
    stage.tell(7)
    assert stage.tasks is None, "not yet"
    stage.clock.advance(EVERY)
    assert [stage.tasks, stage.tasks] == [7, 7]
    assert stage.state.asked == 2


def test_what_cannot_be_read_is_the_last_known_for_the_time_of_grace() -> None:
    stage = Stage()
    stage.tell(7)
    assert stage.tasks == 7
    stage.state.away = True
    stage.clock.advance(EVERY)
    assert [stage.tasks, stage.tasks] == [7, 7]
    assert stage.state.asked == 2, "a server that is away is left alone for some seconds"
    stage.clock.advance(GRACE - EVERY)
    assert stage.tasks == 7
    stage.clock.advance(1.0)
    assert stage.tasks is None
    stage.state.away = False
    stage.clock.advance(REST)
    stage.tell(9)
    assert stage.tasks == 9


@pytest.mark.parametrize(
    "value",
    [
        b"\xc1",
        msgspec.msgpack.encode([0, 1.0, 1.0]),
        msgspec.msgpack.encode([5, -1.0, 1.0]),
        msgspec.msgpack.encode([5, 1.0, float("nan")]),
        msgspec.msgpack.encode({"tasks": 5}),
    ],
)
def test_what_is_no_bound_is_none(value: bytes) -> None:
    stage = Stage()
    asyncio.run(stage.state.put(bound_name("", "mail"), value))
    assert stage.tasks is None


def test_nothing_is_followed_where_nothing_is_kept() -> None:
    assert followed(open_engine("memory://"), TravelClock(0.0), GRACE) is not None
