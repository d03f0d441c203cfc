"""Many producers, each on a connection of its own, one task after the other; beside one embedded producer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import uvloop

from bench.broker.site import site
from bench.enqueue import _ours as embedded
from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Place, call
from penstock.engines.server.keeper import Keeper
from penstock.engines.server.link import Link
from penstock.engines.server.settings import read_settings
from penstock.message import VERSION, Message, pack
from penstock.protocol.replies import Span

CONNECTIONS = 64


def publish(url: str, count: int) -> float:
    """Calls a second of `CONNECTIONS` clients, each of which waits for the answer to its publish before the next."""
    return uvloop.run(_publish(url, count))


async def _publish(url: str, count: int) -> float:
    settings = read_settings(url)
    links, keepers = [], []
    for _ in range(CONNECTIONS):
        link = Link(settings.public)
        keeper = Keeper(
            settings, link.session, lambda reports: None, lambda listener: None, lambda wire: None, lambda: None
        )
        link.go(keeper)
        await keeper.open()
        links.append(link)
        keepers.append(keeper)
    body = pack(Message(VERSION, "bench.tasks.noop", b"[[1],{}]", sent=time.time()))

    async def producer(link: Link) -> None:
        for _ in range(count // CONNECTIONS):
            assert isinstance(await link.publish_batch([body], 30.0), Span)

    started = time.perf_counter()
    await asyncio.gather(*map(producer, links))
    rate = count / (time.perf_counter() - started)
    for keeper in keepers:
        await keeper.close()
    return rate


def _crowd(place: Place) -> Iterator[Result]:
    for durability, goal in (("power", Goal(8, 4)), ("process", None)):
        count = place.size(200_000, 3_200)
        alone = place.size(10_000 if durability == "power" else 100_000, 1_000)

        def once(durability: str = durability, count: int = count, alone: int = alone) -> tuple[float, float]:
            with site(place, durability) as server:
                ours = float(call("bench.broker.crowd", "publish", url=server.url, count=count))
            return ours, embedded(place, "one_by_one", durability, alone)

        runs = place.repeat(3, once)
        ours, one = ([Reading(both[column], foreign) for both, foreign in runs] for column in (0, 1))
        name = f"broker/enqueue/{durability}"
        yield Result(name, f"{CONNECTIONS} connections, one by one", "calls/s", tuple(ours), None, durability)
        yield Result(f"{name}/one", "one embedded producer", "calls/s", tuple(one), None, durability)
        yield Result(f"{name}/ratio", "the first ÷ the second", "×", ratios(ours, one), goal, durability)


MEASURES = (Measure("enqueue", f"{CONNECTIONS} producers at once", _crowd),)
