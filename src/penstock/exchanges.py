"""Calls that go to several queues: those that are bound to an exchange, or one for each live worker.

No server is asked to copy anything: who publishes makes the copies, each a task of its own, and publishes them in one
batch. So they are there all or none, wherever a batch is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from penstock.broker import Answer, Full
from penstock.coordinator import WorkerInfo
from penstock.errors import ConfigError, UnknownQueue
from penstock.message import Limit, Message
from penstock.queue import Broadcast, Exchange, Queue


class SeveralQueues(str):
    """In a message that is not published yet, the place of its queue. It cannot be packed, so that no message goes out
    with it."""

    __slots__ = ("broadcast", "queues")

    queues: tuple[str, ...]
    broadcast: Broadcast | None


def several(shown: str, queues: Sequence[str] = (), broadcast: Broadcast | None = None) -> SeveralQueues:
    """`shown` is for people; a broadcast's queues are those of the workers that live when it is published."""
    made = SeveralQueues(shown)
    made.queues, made.broadcast = tuple(queues), broadcast
    return made


def bound(queues: Sequence[Queue], exchange: str, key: str) -> str:
    """Where a call goes that is published to an exchange. Raises `UnknownQueue` where nothing is bound that would take
    it."""
    kinds = {one.exchange.name: one.exchange for one in queues if one.exchange is not None}
    kind = kinds.get(exchange)
    if kind is None:
        raise UnknownQueue(
            f"no queue in task_queues is bound to an exchange {exchange!r}; exchanges: {', '.join(kinds) or 'none'}"
        )
    there = [queue for queue in queues if queue.exchange is not None and queue.exchange.name == exchange]
    found = [queue.name for queue in there if takes(kind, queue.routing_key, key)]
    if not found:
        keys = ", ".join(repr(queue.routing_key) for queue in there)
        raise UnknownQueue(
            f"no queue takes routing_key={key!r} from the {kind.type} exchange {exchange!r}; bound are {keys}"
        )
    return found[0] if len(found) == 1 else several(f"{exchange}:{key}", found)


def takes(exchange: Exchange, binding: str, key: str) -> bool:
    """Whether a queue that is bound by `binding` gets what is published with `key`."""
    if exchange.type == "fanout":
        return True
    return binding == key if exchange.type == "direct" else _fits(binding.split("."), key.split("."))


def _fits(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """As AMQP has it: `*` is one word, `#` any number of words. One row of a table at a time, so that many `#` cost
    no more than their number."""
    row = [True] + [False] * len(words)
    for part in pattern:
        if part == "#":
            above, row = row, row[:1]
            for place in range(1, len(words) + 1):
                row.append(above[place] or row[place - 1])
        else:
            row = [False] + [row[place] and part in ("*", word) for place, word in enumerate(words)]
    return row[-1]


class Copies:
    """A batch with copies in the place of what goes to several queues, and the way back for their answers."""

    def __init__(self, batch: Sequence[Message], workers: Iterable[WorkerInfo], now: float) -> None:
        """`workers` are those that live. Raises `ConfigError` for a message that must be only one, `UnknownQueue` for a
        broadcast to nobody."""
        served = {queue for worker in workers for queue in worker.queues}
        self.messages: list[Message] = []
        self._counts: list[int] = []
        for message in batch:
            copies = [message] if type(message.queue) is str else _copies(message, served, now)
            self.messages += copies
            self._counts.append(len(copies))

    def answers(self, answers: Sequence[Answer]) -> list[Answer]:
        """One for each message of the batch: that of its first copy, or of the first that was refused."""
        found: list[Answer] = []
        start = 0
        for count in self._counts:
            mine = answers[start : start + count]
            found.append(next((one for one in mine if type(one) is Full), mine[0]))
            start += count
        return found


def _copies(message: Message, served: set[str], now: float) -> list[Message]:
    place = message.queue
    assert isinstance(place, SeveralQueues)
    if message.id is not None or any(not isinstance(guard, Limit) for guard in message.guards):
        what = "task_id" if message.id is not None else "unique"
        raise ConfigError(f"task {message.task!r} goes to several queues ({place!s}): leave out {what}")
    queues, expires = place.queues, message.expires
    if place.broadcast is not None:
        start = place.broadcast.queue_of("", message.namespace)
        queues = tuple(sorted(queue for queue in served if queue.startswith(start)))
        expires = now + place.broadcast.expires if expires is None else expires
        if not queues:
            raise UnknownQueue(f"no worker that lives serves the broadcast {str(place)!r}: nothing was published")
    return [replace(message, queue=queue, expires=expires) for queue in queues]


def needs_workers(batch: Iterable[Message]) -> bool:
    """Some of it goes to the workers that live."""
    return any(type(one.queue) is SeveralQueues and one.queue.broadcast is not None for one in batch)
