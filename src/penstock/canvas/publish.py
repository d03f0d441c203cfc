"""Publishing a canvas: its graph first, then the tasks that it begins with, in chunks; and the result that stands for
it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from penstock import apart
from penstock.batch import open_batch
from penstock.broker import Full
from penstock.canvas.beginning import beginning
from penstock.canvas.calls import Canvas
from penstock.canvas.compile import Compiled, Compiler, Leaf, Many, Shape
from penstock.canvas.graph import KIND, Go, Into
from penstock.canvas.holding import holder
from penstock.canvas.messages import Messages
from penstock.canvas.results import GroupResult
from penstock.errors import ConfigError, OutcomeUnknown, QueueFull
from penstock.message import Message, Place, graph_key, node_id
from penstock.result import AsyncResult

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.broker import Answer, Key

CHUNK = 1_000
"""Messages of one publish: a transaction of some milliseconds."""
LONGEST_PAUSE = 0.2
"""Seconds until a queue that is full is tried again."""


def publish(app: Penstock, canvas: Canvas[Any]) -> apart.Plan[Any]:
    """Returns what stands for its result: an `AsyncResult`, or the `GroupResult` of what ends in a group.

    Before anything is published it raises `ConfigError`, `UnknownTask`, `TypeError`, `EncodeError` and
    `MessageTooLarge` for a canvas that could not be run to its end, `Unsupported` for one that this engine cannot.

    What is larger than a queue, or than one publish, is published in chunks, and waits for room as long as tasks leave
    the queue; when none did for `publish_timeout` seconds it raises `QueueFull`, which tells how many tasks were
    published. They run, and nothing follows them. On other errors it is the same, but after `OutcomeUnknown`, when all
    may be well. Inside a batch it is published with that, whole.
    """
    made = Made(app, canvas)
    batch = open_batch(app.client)
    if batch is not None:
        whole = made.whole()
        made.results = [batch.add(None, message) for message in whole]
        return made.result()
    graph, roots = made.compiled.graph, Roots(made)
    if graph is None:
        yield from _publish_roots(app, roots)
        return made.result()
    engine = holder(app, graph)
    stored = app.pipeline.state_out(KIND, graph.id, graph.pack())
    yield engine, engine.coordinator.put(graph_key(graph.id), stored)
    try:
        yield from _publish_roots(app, roots)
    except OutcomeUnknown:
        raise
    except Exception:
        yield engine, engine.coordinator.put(graph_key(graph.id), None)
        raise
    return made.result()


def send(app: Penstock, canvas: Canvas[Any], connection: object | None) -> Any:
    """`publish`; with a `connection` inside its transaction, whole."""
    if connection is None:
        return apart.drive(publish(app, canvas))
    made = Made(app, canvas)
    messages = made.whole()
    return made.published(messages, app.client.enlist(messages, connection))


async def asend(app: Penstock, canvas: Canvas[Any], connection: object | None) -> Any:
    """`send` without blocking the running loop."""
    if connection is None:
        return await apart.adrive(publish(app, canvas))
    made = Made(app, canvas)
    messages = made.whole()
    return made.published(messages, await app.client.aenlist(messages, connection))


class Made:
    """A canvas that is compiled, and what stands for its result once it is published."""

    def __init__(self, app: Penstock, canvas: Canvas[Any]) -> None:
        if app.conf.task_always_eager:
            raise ConfigError(
                "task_always_eager runs single calls: a canvas needs a worker, or in tests the fixture penstock_tasks"
            )
        self._app = app
        self.graph_id = os.urandom(16).hex()
        self.messages = Messages(app)
        self.compiled = Compiler().compile(canvas, self.graph_id, self.messages)
        self.keys: dict[int, Key] = {}
        """Those of the tasks that were published by the caller."""
        self.results: list[AsyncResult[Any]] = []
        """Of these, where a batch knows them by its own objects, in their order."""

    def whole(self) -> list[Message]:
        """All that is to be published, all or none: the tasks of a plain group, or one message that begins the rest.
        Raises `MessageTooLarge`."""
        graph, roots = self.compiled.graph, Roots(self)
        if graph is None:
            return [message for _, message in roots.take(roots.count)]
        holder(self._app, graph)
        return [beginning(self._app, graph, [message for _, message in roots.take(roots.count)])]

    def published(self, messages: Sequence[Message], answers: Sequence[Answer]) -> Any:
        """The result of what was published whole. Raises as `Client.key_of`."""
        client = self._app.client
        keys = [client.key_of(message, answer) for message, answer in zip(messages, answers, strict=True)]
        if self.compiled.graph is None:
            self.keys.update(zip(self.compiled.roots, keys, strict=True))
        return self.result()

    def result(self) -> Any:
        known: dict[int, AsyncResult[Any]] = {}
        if self.compiled.graph is None:
            known.update(zip(self.compiled.roots, self.results, strict=False))
        return Results(self._app, self.compiled, self.graph_id, self.keys, known).of(self.compiled.shape)


class Roots:
    """The tasks that are published by the caller, and the keys that they got."""

    def __init__(self, made: Made) -> None:
        self._compiled = made.compiled
        self._graph_id = made.graph_id
        self._messages = made.messages
        self._left = iter(made.compiled.roots)
        self.count = len(made.compiled.roots)
        self.keys = made.keys

    def take(self, count: int) -> list[tuple[int, Message]]:
        """The next ones, with their nodes."""
        return [(number, self._message(number)) for number in islice(self._left, count)]

    def _message(self, number: int) -> Message:
        node = self._compiled.nodes[number]
        message = self._messages.root(self._graph_id, number, node)
        if self.count == 1 and not node.alone:
            message.id = node_id(self._graph_id, number)
        return message


def _publish_roots(app: Penstock, roots: Roots) -> apart.Plan[None]:
    client, timeout = app.client, app.conf.publish_timeout
    largest = size = min(CHUNK, client.most)
    since = time.monotonic()
    waiting: list[tuple[int, Message]] = []
    while waiting or len(roots.keys) < roots.count:
        if len(waiting) < size:
            waiting += roots.take(size - len(waiting))
        chunk, later = waiting[:size], waiting[size:]
        answers = yield client.engine, client.publish([message for _, message in chunk])
        full: Full | None = None
        left: list[tuple[int, Message]] = []
        for (number, message), answer in zip(chunk, answers, strict=True):
            if isinstance(answer, Full):
                full = answer
                left.append((number, message))
            else:
                roots.keys[number] = client.key_of(message, answer)
        waiting = left + later
        now = time.monotonic()
        if full is None or len(left) < len(chunk):
            since = now
            size = min(largest, size * 2)
            continue
        room = full.limit - full.depth if full.unit == "tasks" else size // 2
        if (not roots.keys and roots.count <= full.limit and roots.count <= largest) or now - since >= timeout:
            raise QueueFull(full.queue, full.depth, full.limit, full.retry_after, full.unit, accepted=len(roots.keys))
        size = max(1, min(room, size - 1))
        if room <= 0 or len(chunk) == 1:
            yield apart.Pause(min(LONGEST_PAUSE, full.retry_after, max(0.0, since + timeout - now)))


class Results:
    """Makes the results that stand for the shapes of a canvas."""

    def __init__(
        self,
        app: Penstock,
        compiled: Compiled,
        graph_id: str,
        keys: Mapping[int, Key],
        known: Mapping[int, AsyncResult[Any]],
    ) -> None:
        self._app = app
        self._nodes = compiled.nodes
        self._gatherings = () if compiled.graph is None else compiled.graph.gatherings
        self._graph_id = graph_id
        self._keys = keys
        self._known = known
        self._groups: dict[int, GroupResult] = {}
        """By the addresses of their shapes: a group has one id, however often it is asked for."""

    def of(self, shape: Shape) -> Any:
        return self._one(shape) if isinstance(shape, Leaf) else self._many(shape)

    def _many(self, shape: Many) -> GroupResult:
        if id(shape) not in self._groups:
            members = map(self.of, shape.members)
            self._groups[id(shape)] = GroupResult(members, app=self._app, parent=self._before(shape))
        return self._groups[id(shape)]

    def _before(self, shape: Shape) -> Callable[[], Any] | None:
        # Made when somebody asks: before a chord's result is one of many members.
        return None if shape.parent is None else partial(self.of, shape.parent)

    def _one(self, shape: Leaf) -> AsyncResult[Any]:
        number, app = shape.node, self._app
        if number in self._known:
            return self._known[number]
        node = self._nodes[number]
        task = None if node.call is None else app.tasks.get(node.call.task)
        ignored = node.options.get("ignore_result") if node.options else None
        if ignored is None:
            ignored = bool(task.options.ignore_result) if task is not None else app.conf.task_ignore_result
        place = None if node.alone else Place(self._graph_id, number)
        key = self._keys.get(number)
        if key is None:
            key = node_id(self._graph_id, number)
        after = partial(self._after, number) if node.next else None
        return AsyncResult(
            key, app=app, task=task, ignored=ignored, parent=self._before(shape), children=after, place=place
        )

    def _after(self, number: int) -> list[AsyncResult[Any]]:
        """The results of the tasks that are given the value of that node, by whatever relays."""
        found: dict[int, Leaf] = {}
        left = [number]
        while left:
            for edge in self._nodes[left.pop(0)].next:
                then = self._gatherings[edge.gathering].then if isinstance(edge, Into) else edge.node
                if self._nodes[then].call is None:
                    left.append(then)
                else:
                    found[then] = Leaf(then, Leaf(number) if isinstance(edge, Go) else None)
        return [self._one(leaf) for leaf in found.values()]
