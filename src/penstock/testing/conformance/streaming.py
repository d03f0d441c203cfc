"""A running task with parts, who waits for them, and what both find."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from penstock.delivery import Delivery
from penstock.outcome import MOST_PARTS, Parts
from penstock.testing.conformance.expect import HANG, Violation, equal
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import Worker

MARKS = 1 << 63


class Bell:
    """Waits for `notify` of a subscription to parts."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def __call__(self) -> None:
        self._rung.set()

    def wait(self) -> None:
        """Until it was rung since the last `wait`."""
        if not self._rung.wait(HANG):
            raise Violation(f"who waits for parts is not told within {HANG} s")
        self._rung.clear()

    def rung(self) -> bool:
        return self._rung.is_set()

    def forget(self) -> None:
        self._rung.clear()


class Stream:
    """A running task with its parts, as its worker and its readers have them."""

    def __init__(self, kit: Kit, worker: Worker, delivery: Delivery) -> None:
        self.kit, self.worker, self.delivery = kit, worker, delivery
        self.id = worker.id_of(delivery)
        # A worker uses its own handle, and what is shorter there: the engine's key.
        self._engine = worker.engine if kit.results is kit.engine else kit.results
        self._key = delivery.key if kit.results is kit.engine else self.id

    async def append(self, *values: bytes, run: int = 0, mark: int | None = None, content_type: str = "json") -> bool:
        mark = random.randrange(MARKS) if mark is None else mark
        parts = [(value, content_type) for value in values]
        return await self.kit.call(self._engine.backend.append(self._key, run, mark, parts), self._engine)

    async def add(self, *values: bytes, run: int = 0) -> None:
        """An append that must be accepted."""
        equal(await self.append(*values, run=run), True, f"answer to an append of run {run}")

    async def parts(self, offset: int = 0, limit: int = MOST_PARTS) -> Parts:
        return await look(self.kit, self.id, offset, limit)

    async def values(self, offset: int = 0, limit: int = MOST_PARTS) -> list[tuple[int, int, bytes]]:
        return [(part.index, part.run, part.value) for part in (await self.parts(offset, limit)).parts]

    async def ended(self) -> bool:
        return (await self.parts()).ended


async def look(kit: Kit, task_id: str, offset: int = 0, limit: int = MOST_PARTS) -> Parts:
    return await kit.backend_call(kit.backend.parts(task_id, offset, limit))


def nothing(found: Parts, what: str) -> None:
    """Nothing is known of the task."""
    equal((found.first, found.end, list(found.parts), found.ended), (0, 0, [], True), what)


async def streams(kit: Kit) -> bool:
    """Whether the engine of the results keeps parts; if not, it must refuse them."""
    if kit.results.broker.features.streams:
        return True
    await kit.refused(kit.backend.append("id", 0, 1, [(b"1", "json")]), "streams", kit.results)
    await kit.refused(kit.backend.parts("id", 0, 1), "streams", kit.results)
    return False


async def running(kit: Kit, worker: Worker | None = None, queue: str | None = None) -> Stream:
    """A task that a worker has started."""
    queue, worker = queue or await kit.queue(), worker or await kit.worker()
    await kit.fill(queue, 1)
    delivery = await worker.take_one(queue)
    worker.start(delivery)
    return Stream(kit, worker, delivery)


async def until(kit: Kit, bell: Bell, stream: Stream, wanted: Callable[[Parts], bool]) -> None:
    """Look each time that the bell rings, until what is there is what is wanted."""
    while True:
        await kit.threaded(bell.wait)
        if wanted(await stream.parts()):
            return


def has_come(end: int, found: Parts) -> bool:
    return found.end == end
