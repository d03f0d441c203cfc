"""The messages of a canvas's nodes, made as those of any other call, and what a part of a canvas cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from penstock import request as requests
from penstock.canvas.chunks import STARMAP
from penstock.canvas.compile import Node
from penstock.canvas.graph import END, RELAY, Call
from penstock.codec import around
from penstock.errors import ConfigError, UnknownTask
from penstock.message import VERSION, Message, Options, Place
from penstock.options import CallOptions, read_options
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.canvas.calls import Signature
    from penstock.task import Task


class Messages:
    """Makes them for one app."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._checked: set[str] = set()

    def root(self, graph_id: str, number: int, node: Node) -> Message:
        """The whole message of a node that the caller publishes."""
        call = node.call
        if call is None:
            message = self._relay(RELAY, self._app.conf.task_default_queue, self._app.conf.task_default_priority)
            message.body = node.constant or b""
        else:
            if not node.alone:
                self._check(call, node.options)
            message = self._plain(call, node.options)
        if not node.alone:
            message.options = _placed(message.options, graph_id, Place(graph_id, number))
        return message

    def call(self, graph_id: str, node: Node, near: Node) -> Call:
        """What the graph holds of a node that those before it publish. `near`: whose queue a relay goes to."""
        if node.call is None:
            name = END if node.is_end else RELAY
            message = self._relay(name, *self._way(near))
            if node.constant is not None:
                message.body = node.constant
            message.options = _placed(None, graph_id, None)
            return Call(message, None if node.constant is not None else b"")
        self._check(node.call, node.options)
        options, delay, lifetime = self._times(node.call, node.options)
        head = None
        if node.call.immutable:
            message = self._plain(node.call, options)
        else:
            message = self._app.client.prepare_after(
                self._app.tasks[node.call.task], node.call.args, node.call.kwargs, options
            )
            head, message.body = around(message.body, message.content_type)
        if lifetime is not None:
            message.expires = None  # counted from its own publish
        message.options = _placed(message.options, graph_id, None)
        return Call(message, head, delay, lifetime)

    def _plain(self, call: Signature[Any], options: Mapping[str, Any]) -> Message:
        task, client = self._app.tasks.get(call.task), self._app.client
        if task is None:
            return client.prepare_unknown(call.task, call.args, call.kwargs, options)
        return client.prepare(task, call.args, call.kwargs, options)

    def _relay(self, name: str, queue: str, priority: int) -> Message:
        conf = self._app.conf
        now = self._app.clock.time()
        return Message(VERSION, name, b"", None, queue, priority, conf.namespace, content_type="json", sent=now)

    def _way(self, near: Node) -> tuple[str, int]:
        """Queue and priority."""
        conf = self._app.conf
        if near.call is None:
            return conf.task_default_queue, conf.task_default_priority
        task = self._app.tasks.get(near.call.task)
        ours = task.options if task is not None else None
        queue = near.options.get("queue") or (ours.queue if ours is not None else None) or conf.task_default_queue
        priority = near.options.get("priority")
        if priority is None:
            priority = ours.priority if ours is not None else None
        return conf.check_queue(queue), conf.task_default_priority if priority is None else priority

    def _times(
        self, call: Signature[Any], given: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], float | None, float | None]:
        """The options without those that count from its publish, and these: delay and lifetime in seconds."""
        options = read_options(CallOptions, given)
        options.start(0.0)  # raises for bad ones
        options.end(0.0, None)
        task = self._app.tasks.get(call.task)
        lifetime = options.expires
        if lifetime is None and task is not None:
            lifetime = task.options.expires
        rest = {name: value for name, value in given.items() if name != "countdown"}
        if isinstance(lifetime, datetime) or lifetime is None:
            return rest, options.countdown or None, None
        rest.pop("expires", None)
        return rest, options.countdown or None, float(lifetime)

    def _check(self, call: Signature[Any], options: Mapping[str, Any]) -> None:
        """Raise for what could not be told from here, or would leave what follows without a start."""
        if options.get("task_id") is not None:
            raise ConfigError(f"{call!r}: ids of a canvas are made of its own; leave out task_id")
        if options.get("unique"):
            raise ConfigError(f"{call!r}: a task that may be skipped as a duplicate cannot be part of a canvas: unique")
        if call.task in self._checked:
            return
        task = self._app.tasks.get(call.task)
        if task is None and call.task != STARMAP:
            raise UnknownTask(
                f"no task {call.task!r} is registered in this app{hint(call.task, self._app.tasks)}: what is part of a "
                "canvas must be known here, so that nothing begins that cannot end. Import its module, or declare it: "
                f"@app.task(name={call.task!r})"
            )
        if task is not None:
            _check_task(task)
        self._checked.add(call.task)


def _check_task(task: Task[..., Any]) -> None:
    if task.options.unique is not False:
        raise ConfigError(
            f"task {task.name!r} is unique, and may be skipped as a duplicate: then what follows it would never start"
        )
    if not task.options.acks_late:
        raise ConfigError(
            f"task {task.name!r} is acknowledged before it runs (acks_late=False): when its worker dies, nobody would "
            "know that what follows it can no more start"
        )


def _placed(options: Options | None, graph_id: str, place: Place | None) -> Options:
    parent = requests.current.get()
    root = parent.root_id if parent is not None else graph_id
    return replace(options or Options(), root_id=root, place=place)
