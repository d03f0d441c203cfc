"""A producer, or a worker, of a queue that sheds, in a process of its own: `python -m tests.acceptance.shedding`."""

from __future__ import annotations

import sys
import time

from penstock.broker import Accepted, Demand, Full
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite import open_engine
from penstock.message import Message

QUEUE = "race"


def produce(url: str, name: str, count: int) -> None:
    """Print the number of each task that was accepted."""
    engine = open_engine(url, durability="process")
    for number in range(count):
        body = f"{name}{number:05}".encode()
        message = Message(1, "t", body, queue=QUEUE, priority=number % 10, sent=time.time())
        [answer] = engine.run(engine.broker.publish([message], 10.0))
        assert isinstance(answer, Accepted | Full), answer
        if isinstance(answer, Accepted):
            print(body.decode())
    engine.close()


def work(url: str, name: str) -> None:
    """Print the number of each task that was done, until none has come for a while."""
    engine = open_engine(url, durability="process")
    while step := engine.run(engine.broker.step([], Demand((QUEUE,), 3, name * 32, wait=3.0))).deliveries:
        engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in step], None))
        for one in step:
            print(one.message.body.decode() if one.message else "unreadable")
        time.sleep(0.002)
    engine.close()


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        produce(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        work(sys.argv[2], sys.argv[3])
