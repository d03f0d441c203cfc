"""Publishing, under the store's lock: repeats and guards first, then the bounds for all that is new, then the tasks."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Sequence

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Fenced, Full
from penstock.engines.memory.records import Hold, Line
from penstock.engines.memory.store import Store
from penstock.message import Dedup, Fence, Limit, Message, Unique, pack
from penstock.outcome import Outcome, State

Displaced = tuple[str, Unique]
"""The id of a task that loses its key, and the guard that takes it."""


class Keys:
    """Ids and guard keys as they would be with the messages of one batch, of which nothing is stored yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fresh: set[str] = set()
        self.uniques: ChainMap[tuple[str, str], Hold] = ChainMap({}, store.uniques)
        self.dedups: ChainMap[tuple[str, str], Hold] = ChainMap({}, store.dedups)

    def refusal(self, message: Message, task_id: str) -> Duplicate | Conflict | Fenced | None:
        """The answer to what is known, or held off by a guard."""
        now = self._store.now()
        if task_id in self.fresh or self._store.known(task_id):
            return Duplicate(task_id)
        for guard in message.guards:
            match guard:
                case Fence(name=name, token=token):
                    if not is_current(self._store, name, token):
                        return Fenced(name)
                case Dedup(key=key):
                    seen = self.dedups.get((message.namespace, key))
                    if seen is not None and seen.holds(now):
                        return Duplicate(seen.id)
                case Unique(key=key, on_conflict="skip" | "raise"):
                    held = self.uniques.get((message.namespace, key))
                    if held is not None and held.holds(now):
                        return Conflict(key, held.id)
        return None

    def hold(self, message: Message, task_id: str) -> list[Displaced]:
        """Take its keys; returns the tasks that it takes them from."""
        now = self._store.now()
        displaced = []
        self.fresh.add(task_id)
        for guard in message.guards:
            match guard:
                case Dedup(key=key, ttl=ttl):
                    self.dedups[message.namespace, key] = Hold(task_id, now + ttl)
                case Unique(key=key, ttl=unique_ttl):
                    before = self.uniques.get((message.namespace, key))
                    if before is not None and before.holds(now):
                        displaced.append((before.id, guard))
                    until = None if unique_ttl is None else now + unique_ttl
                    self.uniques[message.namespace, key] = Hold(task_id, until)
                case Fence() | Limit():
                    pass
        return displaced

    def commit(self) -> None:
        self._store.uniques.update(self.uniques.maps[0])
        self._store.dedups.update(self.dedups.maps[0])


def publish(store: Store, batch: Sequence[Message]) -> list[Answer]:
    """Accept the batch, or, where something new does not fit, nothing of it."""
    keys = Keys(store)
    answers: list[Answer] = []
    fresh: list[tuple[Message, str, list[Displaced]]] = []
    for message in batch:
        task_id = message.id or mint()
        refusal = keys.refusal(message, task_id)
        if refusal is None:
            fresh.append((message, task_id, keys.hold(message, task_id)))
        answers.append(refusal or Accepted(task_id))
    full = find_full(store, [message for message, _, _ in fresh])
    if full is not None:
        # A repeat of a message of this very batch repeats something that is not there.
        return [full if isinstance(one, Accepted) or _holder(one) in keys.fresh else one for one in answers]
    keys.commit()
    for message, task_id, displaced in fresh:
        enter(store, message, task_id, displaced)
    return answers


def follow_up(store: Store, message: Message) -> Answer:
    """Publish what follows from work that is here: always admitted, and nothing when it is a repeat."""
    keys = Keys(store)
    task_id = message.id or mint()
    if message.retries:
        store.reopen(task_id)
    refusal = keys.refusal(message, task_id)
    if refusal is not None:
        return refusal
    displaced = keys.hold(message, task_id)
    keys.commit()
    enter(store, message, task_id, displaced)
    return Accepted(task_id)


def enter(store: Store, message: Message, task_id: str, displaced: Sequence[Displaced]) -> None:
    for holder, guard in displaced:
        store.displace(holder, guard)
    task = store.enter(message, task_id)
    if task_id in store.revoked:
        store.lift(task)
        store.end(task, Outcome(State.REVOKED, b"", store.now(), retries=task.retries))


def find_full(store: Store, messages: Sequence[Message]) -> Full | None:
    """The first bound that these messages together would pass."""
    wanted: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        wanted.setdefault((message.namespace, message.queue), []).append(len(pack(message)))
    for (namespace, queue), sizes in wanted.items():
        line = store.line(namespace, queue)
        declared = line.declared
        excess = line.depth + len(sizes) - declared.max_length
        if excess > 0:
            return Full(queue, line.depth, declared.max_length, "tasks", retry_after(store, line, excess))
        if line.bytes + sum(sizes) > declared.max_bytes:
            return Full(queue, line.bytes, declared.max_bytes, "bytes", retry_after(store, line, len(sizes)))
    return None


def retry_after(store: Store, line: Line, excess: int) -> float:
    """What to tell who was refused: about how long until `excess` tasks have left the queue."""
    return store.drains.retry_after((line.namespace, line.declared.name), line.settled, excess, line.depth)


def is_current(store: Store, name: str, token: int) -> bool:
    lead = store.leads.get(name)
    return lead is not None and lead.token == token and lead.until > store.now()


def mint() -> str:
    return os.urandom(16).hex()


def _holder(answer: Answer) -> object:
    return answer.key if isinstance(answer, Duplicate | Conflict) else None
