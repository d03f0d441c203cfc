"""The result backend of the memory engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from penstock.backend import Lost, Notify, Subscription, check_parts
from penstock.broker import Key
from penstock.engines.memory.records import Place
from penstock.engines.memory.store import Store
from penstock.outcome import Outcome, Parts, Progress, Report, State


class MemoryBackend:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        with self._store.lock:
            return [self._put(str(key), outcome) for key, outcome in outcomes]

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        with self._store.lock:
            return [self._report(str(key)) for key in keys]

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        with self._store.lock:
            return self._store.shelf.subscribe([str(key) for key in keys], notify)

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        with self._store.lock:
            for key in keys:
                self._store.shelf.forget(str(key))

    async def note(self, key: Key, progress: Progress) -> None:
        with self._store.lock:
            task = self._store.leased.get(str(key))
            if task is not None:
                task.progress = progress

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        check_parts(values)
        with self._store.lock:
            return not self._ended(str(key)) and self._store.shelf.streams.append(str(key), run, mark, values)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        with self._store.lock:
            found = self._store.shelf.streams.parts(str(key), offset, limit)
            if found is None:
                return Parts(0, 0, [], ended=str(key) not in self._store.tasks or self._ended(str(key)))
            return replace(found, ended=self._ended(str(key)))

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        with self._store.lock:
            return self._store.shelf.streams.subscribe(str(key), notify)

    def _ended(self, task_id: str) -> bool:
        return self._store.shelf.get(task_id) is not None or task_id in self._store.letters

    def _put(self, task_id: str, outcome: Outcome) -> bool:
        task = self._store.tasks.get(task_id)
        if task is None:
            return self._store.shelf.store(task_id, outcome, outcome.task or None, None)
        return self._store.shelf.store(task_id, outcome, task.name, task.queue)

    def _report(self, task_id: str) -> Report:
        stored = self._store.shelf.report(task_id)
        if stored is not None:
            return stored
        task = self._store.tasks.get(task_id)
        if task is None:
            letter = self._store.letters.get(task_id)
            if letter is None:
                return Report(task_id, State.UNKNOWN)
            return Report(task_id, State.FAILURE, None, letter.task.name, letter.task.queue, letter.task.retries)
        worker = task.worker or None
        if task.place is Place.LEASED and (self._store.started(task) or task.progress):
            state = State.STARTED
        else:
            state = State.RETRY if task.retried else State.PENDING
        return Report(task_id, state, None, task.name, task.queue, task.retries, worker, task.progress)
