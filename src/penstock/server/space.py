"""One namespace: a store of its own, so that nothing of one is ever seen in another."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from penstock.clock import SystemClock
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.settings import Settings
from penstock.engines.sqlite.store import Neighbours
from penstock.errors import ConfigError, PenstockError
from penstock.message import Message
from penstock.pressure.refused import EVERY, Counts, tell, with_totals
from penstock.queue import Queue, QueueInfo
from penstock.server.access.rights import DEFAULT_NAMESPACE
from penstock.server.blocking import BlockedPublishers
from penstock.server.crew import Crew
from penstock.server.settings import BrokerSettings
from penstock.server.syncing import Syncer
from penstock.server.turns import Turns

FILE = "queue.db"
FOLDER = "namespaces"

log = logging.getLogger("penstock.broker")


def path_of(data: Path, namespace: str) -> Path:
    """The database of a namespace. Raises `ConfigError` for a name that is too long for a file's."""
    if namespace == DEFAULT_NAMESPACE:
        return data / FILE
    name = "n-" + quote(namespace, safe="")
    if len(name) > 200:
        raise ConfigError(f"namespace {namespace[:40]!r}… is too long")
    return data / FOLDER / name / FILE


class Neighbourhood:
    """What the store tells of changes goes to the turns, once there are some."""

    def __init__(self) -> None:
        self.turns: Turns | None = None

    def work(self, queues: int, tasks: int) -> None:
        if self.turns is not None:
            self.turns.work(queues, tasks)

    def results(self) -> None:
        if self.turns is not None:
            self.turns.results()

    def sync(self) -> None:
        if self.turns is not None:
            self.turns.changed()

    def close(self) -> None:
        pass


class Space:
    def __init__(
        self, name: str, settings: BrokerSettings, syncer: Syncer, failed: Callable[[BaseException], None]
    ) -> None:
        """Opens the database. Raises `StoreError`."""
        self.name = name
        loop = asyncio.get_running_loop()
        self.crew = Crew(loop.time)
        path = path_of(settings.data, name)
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        told = Neighbourhood()
        self.engine = SqliteEngine(
            Settings(
                str(path),
                SystemClock(),
                durability=settings.durability,
                result_expires=settings.result_expires,
                result_max_bytes=settings.result_max_bytes,
                sole=True,
            ),
            Neighbours(self.crew, told, told.sync),
        )
        self.store = self.engine.store
        self.turns = told.turns = Turns(self.store, syncer, slow=settings.slow, failed=failed)
        self.blocked = BlockedPublishers(self.overflow)
        self._refused: dict[str, Counts] = {}
        """What was refused and is not told to the shared state yet, by namespace."""
        self._told_at = float("-inf")

    def tick(self, now: float) -> None:
        """About every second (`now` is the loop's time): take back what the dead held, drop what is out of date."""
        try:
            taken = self.engine.run(self.engine.coordinator.reap())
            if self.store.watches.names_awaited:
                self.turns.results()
            if taken:
                log.info("namespace %s: %d tasks of dead or silent workers were taken back", self.name, taken)
        except PenstockError as error:
            log.error("namespace %s: upkeep failed, again in a second: %s", self.name, error)
        self.tell_refused()

    def refuse(self, who: str, message: Message) -> None:
        """A full queue has refused it."""
        self._refused.setdefault(message.namespace, Counts()).add(who, message.queue, message.task)

    def tell_refused(self) -> None:
        """Write down who was refused. What cannot be written is kept for the next time."""
        if not self._refused:
            return
        now = time.monotonic()
        seconds, self._told_at = min(max(now - self._told_at, 0.1), EVERY), now
        for namespace, counts in list(self._refused.items()):
            taken = counts.take()
            call = tell(self.engine.coordinator, namespace, self.name, taken, seconds, time.time())
            try:
                written = self.engine.run(call)
            except PenstockError:
                written = False
            if written:
                del self._refused[namespace]
            else:
                counts.give_back(taken)

    async def queues(self, namespace: str | None) -> Sequence[QueueInfo]:
        """As the engine tells of them, with what was refused here."""
        return await with_totals(self.engine, await self.engine.inspect.queues(namespace), time.time())

    def overflow(self, namespace: str, queue: str) -> str:
        """What becomes of those who publish to this queue when it is full."""
        found = self.declared(namespace, queue)
        return found.overflow if found else "reject"

    def declared(self, namespace: str, queue: str) -> Queue | None:
        """The queue as it is declared now, if it is there."""
        db = self.store.db
        row = db.read(
            lambda: db.query(
                "SELECT q.name, l.max_length, l.max_bytes, q.overflow FROM queue q JOIN lane l ON l.id = -q.id"
                " WHERE q.namespace = ? AND q.name = ?",
                (namespace, queue),
            ).fetchone()
        )
        return Queue(*row) if row else None

    def close(self) -> None:
        self.turns.close()
        self.tell_refused()
        self.engine.close()
