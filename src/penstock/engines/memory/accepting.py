"""Publishing, under the store's lock: repeats and guards first, then the bounds for all that is new, then the tasks."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Sequence

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Fenced, Full
from penstock.engines.memory import making_room
from penstock.engines.memory.making_room import Going, Newcomers
from penstock.engines.memory.records import Hold, Line, Place
from penstock.engines.memory.store import Store
from penstock.message import Dedup, Fence, Limit, Message, Unique, pack
from penstock.outcome import Outcome, State
from penstock.shedding import lowest

Displaced = tuple[str, Unique]
"""The id of a task that loses its key, and the guard that takes it."""
Fresh = tuple[Message, str, list[Displaced]]
"""A new message, the id of its task, and those that it displaces."""


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
    fresh: list[Fresh] = []
    for message in batch:
        task_id = message.id or mint()
        refusal = keys.refusal(message, task_id)
        if refusal is None:
            fresh.append((message, task_id, keys.hold(message, task_id)))
        answers.append(refusal or Accepted(task_id))
    room = find_room(store, fresh)
    if isinstance(room, Full):
        # A repeat of a message of this very batch repeats something that is not there.
        return [room if isinstance(one, Accepted) or _holder(one) in keys.fresh else one for one in answers]
    if room:
        making_room.shed(store, room)
    keys.commit()
    for message, task_id, displaced in fresh:
        enter(store, message, task_id, displaced)
    return answers


def follow_up(store: Store, message: Message) -> Answer:
    """Publish what follows from work that is here: always admitted, and nothing when it is a repeat."""
    keys = Keys(store)
    task_id = message.id or mint()
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


def find_room(store: Store, fresh: Sequence[Fresh]) -> Full | list[Going]:
    """Who goes for these messages; or the first bound that they would pass."""
    wanted: dict[tuple[str, str], list[Message]] = {}
    for message, _, _ in fresh:
        wanted.setdefault((message.namespace, message.queue), []).append(message)
    going: list[Going] = []
    for (namespace, queue), several in wanted.items():
        line, count, size = store.line(namespace, queue), len(several), sum(len(pack(one)) for one in several)
        if find_full(store, line, count, size) is None:
            continue
        leaving = find_leaving(store, fresh)
        away = [taken for place, taken in leaving.values() if place == (namespace, queue)]
        count, size = count - len(away), size - sum(away)
        full = find_full(store, line, count, size)
        if full is None or (count <= 0 and size <= 0):
            continue  # what takes the place of another fits
        come = Newcomers(count, size, lowest(several), leaving.keys())
        chosen = making_room.choose(store, line, come, full)
        if chosen is None:
            making_room.spare(store, going)
            return full
        going += chosen
    return going


def find_leaving(store: Store, fresh: Sequence[Fresh]) -> dict[str, tuple[tuple[str, str], int]]:
    """By id: queue and bytes of each task that would end for these messages, as they take its key; also from each
    other."""
    new = {task_id: message for message, task_id, _ in fresh}
    leaving: dict[str, tuple[tuple[str, str], int]] = {}
    for _, _, displaced in fresh:
        for holder, _ in displaced:
            task = store.tasks.get(holder)
            if holder in new:
                leaving[holder] = (new[holder].namespace, new[holder].queue), len(pack(new[holder]))
            elif task is not None and task.place is not Place.LEASED:
                leaving[holder] = (task.namespace, task.queue), len(task.data)
    return leaving


def find_full(store: Store, line: Line, count: int, size: int) -> Full | None:
    """The bound that so many messages and bytes would pass."""
    declared = line.declared
    excess = line.depth + count - declared.max_length
    if excess > 0:
        return Full(declared.name, line.depth, declared.max_length, "tasks", retry_after(store, line, excess))
    if line.bytes + size > declared.max_bytes:
        return Full(declared.name, line.bytes, declared.max_bytes, "bytes", retry_after(store, line, count))
    return None


def retry_after(store: Store, line: Line, excess: int) -> float:
    """What to tell who was refused: about how long until `excess` tasks have left the queue."""
    return store.drains.retry_after((line.namespace, line.declared.name), line.settled - line.shed, excess, line.depth)


def is_current(store: Store, name: str, token: int) -> bool:
    lead = store.leads.get(name)
    return lead is not None and lead.token == token and lead.until > store.now()


def mint() -> str:
    return os.urandom(16).hex()


def _holder(answer: Answer) -> object:
    return answer.key if isinstance(answer, Duplicate | Conflict) else None
