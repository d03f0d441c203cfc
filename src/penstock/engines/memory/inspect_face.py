"""What consoles see of, and do to, the memory engine's queues."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import DeadLetter, Member, Peeked
from penstock.engines.memory.records import Letter, Line, Place, Task
from penstock.engines.memory.settling import read
from penstock.engines.memory.store import Store
from penstock.message import pack
from penstock.outcome import Outcome, State
from penstock.queue import Queue, QueueInfo
from penstock.retry import afresh

ORDER = {Place.READY: 0, Place.DELAYED: 1, Place.LEASED: 2}


class MemoryInspect:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        with self._store.lock:
            for queue in queues:
                line = self._store.line(namespace, queue.name)
                line.declared, line.candidates = queue, None

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        with self._store.lock:
            self._store.tidy()
            return [self._info(line) for line in self._store.lines.values() if namespace in (None, line.namespace)]

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        with self._store.lock:
            self._store.tidy()
            tasks = sorted(self._tasks(queue, namespace), key=_position)
            return [Peeked(task.id, task.place.value, read(task.data)[0], task.due) for task in tasks[:limit]]

    async def purge(self, queue: str, namespace: str = "") -> int:
        with self._store.lock:
            self._store.tidy()
            waiting = [task for task in self._tasks(queue, namespace) if task.place is not Place.LEASED]
            for task in waiting:
                self._store.lift(task)
                self._store.end(task, Outcome(State.REVOKED, b"", self._store.now(), retries=task.retries))
            return len(waiting)

    async def pause(self, queue: str, namespace: str = "") -> bool:
        with self._store.lock:
            line = self._store.line(namespace, queue)
            line.paused, before = True, line.paused
            return not before

    async def resume(self, queue: str, namespace: str = "") -> bool:
        with self._store.lock:
            line = self._store.lines.get((namespace, queue))
            if line is None or not line.paused:
                return False
            line.paused = False
            self._store.waiters.ring()
            return True

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        with self._store.lock:
            letters = [one for one in self._store.letters.values() if _is_of(one, queue, namespace)]
            return [_letter(one) for one in letters[:limit]]

    async def retry_dead(self, ids: Sequence[str]) -> int:
        with self._store.lock:
            letters = [letter for one in ids if (letter := self._store.letters.pop(one, None)) is not None]
            for letter in letters:
                self._revive(letter.task)
            return len(letters)

    async def drop_dead(self, ids: Sequence[str]) -> int:
        with self._store.lock:
            return sum(self._store.letters.pop(one, None) is not None for one in ids)

    async def members(self) -> Sequence[Member]:
        return ()

    def _revive(self, dead: Task) -> None:
        """The same id and message, with fresh counts, and a place for a new outcome."""
        message, _ = read(dead.data)
        fresh = Task(
            dead.id,
            dead.name,
            dead.namespace,
            dead.queue,
            dead.priority,
            dead.partition,
            dead.data if message is None else pack(afresh(message)),
            self._store.now(),
            next(self._store.numbers),
            handed=True,
            limit=dead.limit,
        )
        self._store.shelf.forget(dead.id)
        self._store.admit(fresh, None, newest=False)

    def _tasks(self, queue: str, namespace: str) -> list[Task]:
        return [task for task in self._store.tasks.values() if (task.namespace, task.queue) == (namespace, queue)]

    def _info(self, line: Line) -> QueueInfo:
        name, namespace = line.declared.name, line.namespace
        ready = [task.accepted for task in self._tasks(name, namespace) if task.place is Place.READY]
        return QueueInfo(
            name,
            namespace,
            line.declared.max_length,
            line.declared.max_bytes,
            depth=line.depth,
            bytes=line.bytes,
            ready=line.counts[Place.READY],
            leased=line.counts[Place.LEASED],
            delayed=line.counts[Place.DELAYED],
            dead=sum(_is_of(letter, name, namespace) for letter in self._store.letters.values()),
            oldest_age=self._store.now() - min(ready) if ready else None,
            enqueued=line.enqueued,
            settled=line.settled,
            paused=line.paused,
            shed=line.shed,
        )


def _position(task: Task) -> tuple[int, float, int, int]:
    """Ready before delayed before leased, and in the order of delivery."""
    return (ORDER[task.place], task.due or 0.0, -task.priority, task.order)


def _is_of(letter: Letter, queue: str | None, namespace: str) -> bool:
    return letter.task.namespace == namespace and queue in (None, letter.task.queue)


def _letter(letter: Letter) -> DeadLetter:
    task = letter.task
    message, _ = read(task.data)
    if message is not None:
        message.id, message.attempts = task.id, task.attempts
    return DeadLetter(task.id, task.queue, letter.reason, letter.died, message, task.data if message is None else b"")
