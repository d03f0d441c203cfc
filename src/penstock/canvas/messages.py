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
from penstock.codec import JOINABLE, JSON, NONE, around, transcoded
from penstock.errors import ConfigError, UnknownTask
from penstock.message import VERSION, Message, Options, Place
from penstock.on_full import only_single
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
        call, conf = node.call, self._app.conf
        only_single("a canvas", node.options or {})
        if call is None:
            message = self._inner(RELAY, conf.task_default_queue, conf.task_default_priority)
            message.body = _constant(node.constant, message)
        else:
            if not node.alone:
                self._check(call, node.options)
            message = self._plain(call, node.options)
        if not node.alone:
            _check_queue(message)
            message.options = _placed(message.options, graph_id, Place(graph_id, number))
        return message

    def call(self, graph_id: str, call: Signature[Any], given: Mapping[str, Any]) -> Call:
        """What the graph holds of a node that those before it publish."""
        self._check(call, given)
        only_single("a canvas", given)
        options, delay, lifetime = self._times(call, given)
        options = {**options, "compression": NONE}  # values are put into it, or it into a message of values
        head = None
        if call.immutable:
            message = self._plain(call, options)
        else:
            message = self._app.client.prepare_after(self._app.tasks[call.task], call.args, call.kwargs, options)
        if message.content_type not in JOINABLE:
            raise ConfigError(
                f"{call!r} follows something, and would be written as {message.content_type}: values are put together "
                f"as {' or '.join(JOINABLE)}; give it .set(serializer='{JOINABLE[0]}')"
            )
        if not call.immutable:
            head, message.body = around(message.body, message.content_type)
        if lifetime is not None:
            message.expires = None  # counted from its own publish
        _check_queue(message)
        message.options = _placed(message.options, graph_id, None)
        return Call(message, head, delay, lifetime)

    def relay(self, graph_id: str, node: Node, near: Message) -> Call:
        """What the graph holds of a node that has no function. It goes where `near` goes."""
        message = self._inner(END if node.is_end else RELAY, near.queue, near.priority)
        message.options = _placed(None, graph_id, None)
        if node.constant is None:
            return Call(message, b"")
        message.body = _constant(node.constant, message)
        return Call(message)

    def _plain(self, call: Signature[Any], options: Mapping[str, Any]) -> Message:
        task, client = self._app.tasks.get(call.task), self._app.client
        if task is None:
            return client.prepare_unknown(call.task, call.args, call.kwargs, options)
        return client.prepare(task, call.args, call.kwargs, options)

    def _inner(self, name: str, queue: str, priority: int) -> Message:
        conf, now, reader = self._app.conf, self._app.clock.time(), self._app.pipeline.reader
        form = next((form for form in JOINABLE if reader.accepts(form)), None)
        if form is None:
            raise ConfigError(
                f"a canvas hands lists of values on as {' or '.join(JOINABLE)}: let accept_content have one of them"
            )
        return Message(VERSION, name, b"", None, queue, priority, conf.namespace, content_type=form, sent=now)

    def _times(
        self, call: Signature[Any], given: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], float | None, float | None]:
        """The options without those that count from its publish, and these: delay and lifetime in seconds."""
        task = self._app.tasks.get(call.task)
        if task is not None:
            given = self._app.client.routed(task, call.args, call.kwargs, given)
        options = read_options(CallOptions, given)
        options.start(0.0)  # raises for bad ones
        options.end(0.0, None)
        lifetime = options.expires
        if lifetime is None and task is not None:
            lifetime = task.options.lifetime
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
            _check_task(task, self._app)
        self._checked.add(call.task)


def _constant(value: bytes | None, message: Message) -> bytes:
    """The value of a relay, which is JSON, as this message carries it."""
    return b"" if value is None else transcoded(value, JSON, message.content_type)


def _check_queue(message: Message) -> None:
    if type(message.queue) is not str:
        raise ConfigError(
            f"task {message.task!r} goes to several queues ({message.queue}): a part of a canvas is one task, and has "
            "one value"
        )


def _check_task(task: Task[..., Any], app: Penstock) -> None:
    if task.options.unique is not False:
        raise ConfigError(
            f"task {task.name!r} is unique, and may be skipped as a duplicate: then what follows it would never start"
        )
    if not task.options.acks_late and not app.engine.broker.features.notes_starts:
        raise ConfigError(
            f"task {task.name!r} has acks_late=False, and is acknowledged before it runs on the "
            f"{app.engine.broker.features.engine} engine, which keeps no shared state: when its worker dies, nobody "
            "would know that what follows it can no more start; leave acks_late, or use another engine"
        )


def _placed(options: Options | None, graph_id: str, place: Place | None) -> Options:
    parent = requests.current.get()
    root = parent.root_id if parent is not None else graph_id
    if options is None:  # as nearly always: and a group may be large
        return Options(root_id=root, place=place)
    return replace(options, root_id=root, place=place)
