"""Who waits for an outcome is told, whenever the news comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from penstock.engines.postgres.naming import BUCKET
from penstock.engines.postgres.outcomes import Stored
from penstock.engines.postgres.watching import Watcher, Watching
from penstock.outcome import Outcome, Report, State

NUMBER = 7 << BUCKET
STORED = Stored("task", "worker", Outcome(State.SUCCESS, b"1", 0.0))


class Server:
    """Links, lookup and bells of a server that stores the outcome, and says so, while the first look is under way."""

    def __init__(self, looks_that_miss: int = 1) -> None:
        self.looks: list[list[int]] = []
        self.missing = looks_that_miss
        self.watching: Watching | None = None

    async def call(self, work: Any, _seconds: float, *, repeat: bool) -> Any:
        return await work(None)

    async def watch(self) -> None:
        """Registered."""

    async def numbers(self, _connection: object, keys: Iterable[int]) -> dict[int, int]:
        return {key: key for key in keys}

    async def ended(self, _connection: object, numbers: Iterable[int]) -> tuple[dict[int, Stored], tuple[int, int]]:
        self.looks.append(list(numbers))
        if self.looks[-1] and self.missing > 0:
            self.missing -= 1
            assert self.watching is not None
            self.watching.told(str(NUMBER >> BUCKET))
            await asyncio.sleep(0)
            return {}, (9, 9)
        return dict.fromkeys(self.looks[-1], STORED), (9, 9)

    def told(self, key: int, stored: Stored) -> Report:
        return Report(str(key), State.SUCCESS, stored.outcome)


def test_news_that_come_during_a_look_are_looked_at() -> None:
    async def scene() -> list[Report]:
        server = Server()
        watching = server.watching = Watching(cast(Any, server), cast(Any, server), asyncio.get_running_loop())
        watching.bells = cast(Any, server)
        told: asyncio.Future[list[Report]] = asyncio.get_running_loop().create_future()
        watching.soon(Watcher(watching, [NUMBER], lambda reports: told.set_result(list(reports))))
        try:
            return await asyncio.wait_for(told, 2)
        finally:
            await watching.close()

    (report,) = asyncio.run(scene())
    assert report.state is State.SUCCESS
