"""A producer that wants into a full queue: `python -m tests.acceptance.rush URL QUEUE BOUND OVERFLOW COUNT`.

It says that it is ready, begins when a line comes, publishes so many tasks, one by one and in batches of three, and
prints how many were accepted, and for how many there was no room.
"""

from __future__ import annotations

import sys
from typing import Any

from penstock import Penstock, Queue
from penstock.broker import Accepted, Full
from penstock.message import Message

TIMEOUT = 20.0
SIZES = (1, 3)


def rushing(url: str, queue: str, bound: int, overflow: Any) -> Penstock:
    """The app, as all of them know it."""
    return Penstock("rush", broker=url, task_queues=[Queue(queue, bound, overflow=overflow)])


def main(url: str, queue: str, bound: str, overflow: str, count: str) -> None:
    engine = rushing(url, queue, int(bound), overflow).engine
    print("ready", flush=True)
    sys.stdin.readline()
    accepted = full = number = 0
    while number < int(count):
        size = min(SIZES[number % len(SIZES)], int(count) - number)
        batch = [Message(1, "rush", b"[[],{}]", queue=queue, priority=(number + n) % 10) for n in range(size)]
        answers = engine.run(engine.broker.publish(batch, TIMEOUT))
        accepted += sum(isinstance(answer, Accepted) for answer in answers)
        full += sum(isinstance(answer, Full) for answer in answers)
        number += size
    print(accepted, full, flush=True)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
