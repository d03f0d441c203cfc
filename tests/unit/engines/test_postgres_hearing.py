"""Who listens for parts is rung, whenever the news comes, and of nothing that he does not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import pytest

from penstock.broker import Key
from penstock.engines.postgres.hearing import Ear, Hearing
from penstock.engines.postgres.naming import BUCKET

NUMBER, OTHER = 7 << BUCKET, 9 << BUCKET
Scene = Callable[[Hearing], Awaitable[None]]


class Server:
    """Links, lookup, bells and a connection, on which one transaction runs until `over`."""

    def __init__(self) -> None:
        self.known: dict[Key, int] = {NUMBER: NUMBER, OTHER: OTHER}
        self.looks = 0
        self.over = True

    async def call(self, work: Any, _seconds: float, *, repeat: bool) -> Any:
        self.looks += 1
        return await work(self)

    async def watch(self, *, parts: bool) -> None:
        assert parts

    async def numbers(self, _connection: object, keys: Iterable[Key]) -> dict[Key, int]:
        return {key: self.known[key] for key in keys if key in self.known}

    async def fetchrow(self, _sql: str) -> tuple[str, str]:
        return ("9", "9") if self.over else ("5", "9")


@pytest.fixture
def server() -> Server:
    return Server()


def play(server: Server, scene: Scene) -> None:
    async def run() -> None:
        links = cast(Any, server)
        hearing = Hearing(links, links, links, asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scene(hearing), 5)
        finally:
            await hearing.close()

    asyncio.run(run())


class Bell:
    def __init__(self) -> None:
        self.rung = asyncio.Event()

    async def wait(self) -> None:
        await self.rung.wait()
        self.rung.clear()


def listen(hearing: Hearing, key: Key) -> tuple[Bell, Ear]:
    bell = Bell()
    ear = Ear(hearing, key, bell.rung.set)
    hearing.soon(ear)
    return bell, ear


def test_who_begins_looks_at_once_and_is_rung_by_the_servers_word(server: Server) -> None:
    async def scene(hearing: Hearing) -> None:
        bell, _ = listen(hearing, NUMBER)
        other, _ = listen(hearing, OTHER)
        await bell.wait()
        await other.wait()
        hearing.told(f"p{NUMBER}")
        await bell.wait()
        hearing.told(f"3 {NUMBER >> BUCKET}")
        await bell.wait()
        assert not other.rung.is_set()
        hearing.told(None)
        await bell.wait()
        await other.wait()

    play(server, scene)


def test_until_what_ran_when_one_came_is_over_all_look_again(server: Server) -> None:
    """It may have looked at the registrations before this one was there, and commit after the first look."""
    server.over = False

    async def scene(hearing: Hearing) -> None:
        bell, _ = listen(hearing, NUMBER)
        for _ in range(3):
            await bell.wait()
        server.over = True
        await bell.wait()
        await asyncio.sleep(0.2)
        looks = server.looks
        await asyncio.sleep(0.2)
        assert server.looks == looks

    play(server, scene)


def test_a_name_gets_its_number_with_its_first_parts(server: Server) -> None:
    async def scene(hearing: Hearing) -> None:
        bell, _ = listen(hearing, "stranger")
        await bell.wait()
        server.known["stranger"] = 77
        hearing.told("p77")
        await bell.wait()
        await asyncio.sleep(0.05)
        bell.rung.clear()
        hearing.told("p77")
        assert bell.rung.is_set()

    play(server, scene)


def test_who_has_left_is_not_rung_and_others_are(server: Server) -> None:
    async def scene(hearing: Hearing) -> None:
        gone, ear = listen(hearing, NUMBER)
        bell, _ = listen(hearing, NUMBER)
        await gone.wait()
        await bell.wait()
        ear.close()
        ear.close()
        await asyncio.sleep(0.05)
        gone.rung.clear()
        bell.rung.clear()
        hearing.told(f"p{NUMBER}")
        assert bell.rung.is_set() and not gone.rung.is_set()

    play(server, scene)


def test_one_whose_loop_is_closed_does_not_hold_up_the_others(server: Server) -> None:
    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    async def scene(hearing: Hearing) -> None:
        hearing.soon(Ear(hearing, NUMBER, closed))
        bell, _ = listen(hearing, NUMBER)
        await bell.wait()

    play(server, scene)
