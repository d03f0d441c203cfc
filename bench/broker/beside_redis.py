"""The same durable steps on the broker and on Redis with `appendfsync always`, by redis-py: publish, claim, then result
and acknowledgement together; everything in batches, one client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import redis

from bench.broker.site import site
from bench.measure import Goal, Measure, Reading, Result, ratios
from bench.place import Place, call
from penstock.broker import Demand
from penstock.delivery import ACK, Settlement
from penstock.engines.server import open_engine
from penstock.message import VERSION, Message, pack
from penstock.outcome import Outcome, State
from tests.servers import redis_server

PUBLISH, CLAIM = 1_000, 256
BODY = b"[[1],{}]"


def on_broker(url: str, count: int) -> float:
    engine = open_engine(url)
    queue = "bench"

    def publish(size: int) -> None:
        messages = [Message(VERSION, "bench.tasks.noop", BODY, queue=queue, sent=time.time()) for _ in range(size)]
        engine.run(engine.broker.publish(messages, 30.0))

    ended: list[Settlement] = []

    def work() -> int:
        """Settle what was claimed and claim the next, in one step."""
        want = Demand((queue,), CLAIM, "bench")
        step = engine.run(engine.broker.step(ended, want))
        now = time.time()
        ended[:] = [Settlement(one.receipt, ACK, Outcome(State.SUCCESS, b"null", now)) for one in step.deliveries]
        return len(ended)

    rate = _rate(count, publish, work)
    engine.close()
    return rate


def on_redis(url: str, count: int) -> float:
    client = redis.Redis.from_url(url)
    client.xgroup_create("bench", "workers", mkstream=True)
    body = pack(Message(VERSION, "bench.tasks.noop", BODY, sent=time.time()))

    def publish(size: int) -> None:
        pipe = client.pipeline(transaction=True)
        for _ in range(size):
            pipe.xadd("bench", {"b": body})
        pipe.execute()

    claimed: list[bytes] = []

    def work() -> int:
        """Results and acknowledgements of what was claimed, in one transaction, and the next claim with them."""
        pipe = client.pipeline(transaction=True)
        for task in claimed:
            pipe.set(b"r:" + task, b"null", ex=86_400)
        if claimed:
            pipe.xack("bench", "workers", *claimed)
            pipe.xdel("bench", *claimed)
        pipe.xreadgroup("workers", "one", {"bench": ">"}, count=CLAIM)
        found = pipe.execute()[-1]
        claimed[:] = [task for task, _ in found[0][1]] if found else []
        return len(claimed)

    rate = _rate(count, publish, work)
    client.close()
    return rate


def _rate(count: int, publish: Callable[[int], None], work: Callable[[], int]) -> float:
    started = time.perf_counter()
    for _ in range(count // PUBLISH):
        publish(PUBLISH)
    while work():
        pass
    return count / (time.perf_counter() - started)


def _beside_redis(place: Place) -> Iterator[Result]:
    count = place.size(100_000, 5_000)

    def once() -> tuple[float, float]:
        with site(place, "power") as server:
            ours = float(call("bench.broker.beside_redis", "on_broker", url=server.url, count=count))
        with place.private() as folder, redis_server(folder, "--appendfsync", "always") as server:
            return ours, float(call("bench.broker.beside_redis", "on_redis", url=server.url, count=count))

    runs = place.repeat(3, once)
    ours, theirs = ([Reading(both[column], foreign) for both, foreign in runs] for column in (0, 1))
    what = "publish, claim, result + ack, in batches, one client"
    yield Result("broker/redis/ours", f"{what}: the broker", "tasks/s", tuple(ours), None, "power")
    yield Result("broker/redis/theirs", f"{what}: Redis, AOF always", "tasks/s", tuple(theirs), None, "power")
    yield Result("broker/redis/ratio", "the first ÷ the second", "×", ratios(ours, theirs), Goal(1, 0.5), "power")


MEASURES = (Measure("redis", "the same steps on Redis", _beside_redis),)
