"""Making room in a full queue (`Queue.overflow`): what must go, what may not, and what is said of it. Pure; which tasks
they are is the engine's business, in the transaction of the publish.

- "drop-oldest": those that are ready for longest, whatever their priority: in one lane the first that came, between
  lanes by when the engine accepted them, or `Message.ready_since`.
- "shed-lowest-priority": of the lowest priority those that are ready for the shortest time, then of the next, and
  only what is lower than the lowest of the messages that come together.
- Spared is what is not due, what was handed out before (leased, released, retried), what cannot be read, and what
  `is_spared` says. It counts as depth. Where the others cannot make room the answer is `Full`, and nothing is
  changed; so it is for a batch that is larger than the bound, and for what would shed more than `MOST`. Messages of
  one batch do not shed each other.
- A publish sheds what it brings, not more: a bound that was lowered below the depth sheds nothing by itself. The
  depth stays what it was then, until workers have done what is too much.
- What is shed becomes a dead letter with `reason`; where results are kept on the same server, its outcome is
  `outcome`, and who waits is told; its unique keys are free; it counts as settled, and in `QueueInfo.shed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.codec.failures import failure
from penstock.errors import TaskShed
from penstock.message import OWN_HEADERS, Message, beginning_id, graph_of, is_graph_id
from penstock.outcome import Outcome, State

DROP_OLDEST = "drop-oldest"
SHED_LOWEST = "shed-lowest-priority"
SHEDDING = frozenset({DROP_OLDEST, SHED_LOWEST})
"""The values of `Queue.overflow` with which a queue sheds."""
MOST = 10_000
"""Tasks that one publish sheds, at most."""


class Excess(NamedTuple):
    """What must leave the queue, so that something fits: at least so many tasks, and so many bytes of messages."""

    tasks: int
    bytes: int


def excess(count: int, size: int, depth: int, used: int, max_length: int, max_bytes: int) -> Excess | None:
    """What must leave for `count` new messages of `size` bytes together; `None`: nothing would make room for them."""
    if count > max_length or size > max_bytes:
        return None
    return Excess(max(0, min(count, depth + count - max_length)), max(0, min(size, used + size - max_bytes)))


def is_spared(message: Message) -> bool:
    """It was begun already, or is part of a canvas, whose other parts wait for it: never shed. What follows from a
    settlement is such a part, with no exception."""
    if message.retries or message.attempts:
        return True
    if message.headers and any(name.startswith(OWN_HEADERS) for name in message.headers):
        return True  # it asked for more time, or had a worker that did not know it
    if message.options is not None and message.options.place is not None:
        return True
    return message.id is not None and _is_in_a_graph(message.id)


def _is_in_a_graph(task_id: str) -> bool:
    graph = task_id.partition(".")[0]
    return is_graph_id(graph) and (graph_of(task_id) is not None or task_id == beginning_id(graph))


def reason(overflow: str, queue: str, unit: str, limit: int, priority: int) -> str:
    """What a dead letter says. `unit` is "tasks" or "bytes", whichever bound was reached; `priority` that of the
    newcomers."""
    full = f"shed: queue {queue!r} was full (limit {limit:,} {unit})"
    if overflow == DROP_OLDEST:
        return f"{full}, and no task of it was ready for longer, when another came"
    return f"{full} when a task of priority {priority} came"


def outcome(message: Message, why: str, now: float) -> Outcome | None:
    """What those see who wait for a task that was shed; `why` is its `reason`. `None`: the call ignores its result."""
    if message.options is not None and message.options.ignore_result:
        return None
    return Outcome(State.FAILURE, failure(TaskShed(why), traceback=""), now)  # none has been raised


def lowest(messages: Sequence[Message]) -> int:
    """The priority of messages that come together: only what is lower makes room for them."""
    return min(message.priority for message in messages)
