"""A canvas in the place of a task that runs: `self.replace(canvas)`, and `self.add_to_chord(canvas)`.

It becomes a graph of its own, which is stored and begun in the very settlement that ends the task. Where the task is
part of a canvas, the way out of the new graph is a bridge: a message that ends the task's node in the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from penstock.canvas.calls import Canvas, group
from penstock.canvas.compile import Compiler
from penstock.canvas.graph import KIND, VALUE, VALUES, Call, Graph, Into
from penstock.canvas.holding import holder
from penstock.canvas.messages import Messages
from penstock.codec import JOINABLE, JSON, transcoded
from penstock.effects import Effect, Publish, Put
from penstock.errors import ConfigError, MessageTooLarge
from penstock.message import OWN_HEADERS, Message, Options, Place, graph_key, node_id

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.request import Request


def instead(app: Penstock, canvas: Canvas[Any], message: Message, task_id: str) -> tuple[str, tuple[Effect, ...]]:
    """What begins `canvas` in the place of the task `message`, and the id of the task whose value is that of the whole.

    Raises what publishing a canvas does."""
    place = _place(message)
    bridge = None
    if place is not None:
        form = message.content_type if message.content_type in JOINABLE else JSON
        bridge = Call(_bridge(message, form), b"", outer=Place(place.graph, place.node, bridge=VALUE))
    return _begun(app, canvas, message, task_id, bridge)


def beside(
    app: Penstock, graph: Graph, calls: Sequence[Canvas[Any]], message: Message, task_id: str, value: bytes, form: str
) -> tuple[Effect, ...]:
    """What begins `calls`, whose values go into the gathering right after `value`, that of the task `message`, encoded
    as `form`. Its node ends when they all have."""
    place = _place(message)
    assert place is not None  # `check_member` saw it
    gathering = graph.gatherings[check_member(graph, place).gathering]
    value = transcoded(value, form, gathering.content_type)
    inner = _bridge(message, gathering.content_type)
    inner.body, head = (b"]", b"[" + value + b",") if gathering.content_type == JSON else (b"", b"\x92" + value)
    bridge = Call(inner, head, outer=Place(place.graph, place.node, bridge=VALUES))
    return _begun(app, group(calls), message, task_id, bridge)[1]


def add_member(request: Request, call: Canvas[Any]) -> None:
    """Let the chord of which this run is a member wait for `call`, too. Raises as `check_member`."""
    check_member(None if request.delivery is None else request.delivery.graph, _place(request.message))
    request.added = (*request.added, call)


def check_member(graph: Graph | None, place: Place | None) -> Into:
    """The way of a member into its gathering. Raises `ConfigError` for what is none."""
    edges = graph.at(place.node).next if graph is not None and place is not None else ()
    found = next((edge for edge in edges if isinstance(edge, Into)), None)
    if found is None:
        raise ConfigError(
            "add_to_chord: this call is no member of a chord's header (nor the last of a chain that is one)"
        )
    return found


def _begun(
    app: Penstock, canvas: Canvas[Any], message: Message, task_id: str, bridge: Call | None
) -> tuple[str, tuple[Effect, ...]]:
    # The same again when a crash makes the task run again, or be published again; another when somebody who chooses ids
    # uses one again. Those of parts of a canvas are used once.
    published = message.sent if _place(message) is None else 0.0
    graph_id = blake2b(f"{task_id} {published!r}".encode(), digest_size=16).hexdigest()
    messages = Messages(app)
    compiled, end = Compiler().within(canvas, _inherited(message), graph_id, messages, bridge)
    assert compiled.graph is not None
    holder(app, compiled.graph)
    stored = app.pipeline.state_out(KIND, graph_id, compiled.graph.pack())
    effects: list[Effect] = [Put(graph_key(graph_id), stored, 0)]
    size, most = 0, app.engine.broker.features.max_message
    for number in compiled.roots:
        root = messages.root(graph_id, number, compiled.nodes[number])
        root.id = node_id(graph_id, number)
        effects.append(Publish(root))
        size += len(root.body)
        if size > most:
            raise MessageTooLarge(
                f"the first tasks of what a task publishes as it ends take more than {most:,} bytes: store the data "
                "elsewhere and pass keys"
            )
    return node_id(graph_id, end), tuple(effects)


def _inherited(message: Message) -> Mapping[str, Any]:
    """Its stamps."""
    return {"headers": stamps} if (stamps := _stamps(message)) else {}


def _stamps(message: Message) -> dict[str, str]:
    return {name: text for name, text in (message.headers or {}).items() if not name.startswith(OWN_HEADERS)}


def _place(message: Message) -> Place | None:
    return None if message.options is None else message.options.place


def _bridge(message: Message, form: str) -> Message:
    """It goes where the task does, under its name."""
    return replace(
        message,
        id=None,
        body=b"",
        eta=None,
        expires=None,
        retries=0,
        attempts=0,
        content_type=form,
        guards=(),
        options=replace(message.options or Options(), place=None),
        headers=_stamps(message) or None,
        signed=None,
    )
