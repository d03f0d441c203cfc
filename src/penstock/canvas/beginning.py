"""A canvas in one message, for who publishes all or none: in a batch, or inside a transaction. Its settlement stores
the graph, and publishes the first tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from penstock.canvas.compile import WIDEST
from penstock.canvas.graph import BEGIN, KIND, Graph
from penstock.effects import Effect, Publish, Put
from penstock.errors import ConfigError, DecodeError, MessageTooLarge
from penstock.message import VERSION, Message, Options, Place, beginning_id, graph_key, node_id

if TYPE_CHECKING:
    from penstock.app import Penstock


class Begin(Struct, array_like=True):
    """The graph as it is stored, and the tasks that it begins with."""

    graph: bytes
    roots: list[Message]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Begin).decode


def beginning(app: Penstock, graph: Graph, roots: Sequence[Message]) -> Message:
    """Raises `ConfigError` and `MessageTooLarge` for what no message can begin."""
    if len(roots) > WIDEST:
        raise ConfigError(f"{len(roots):,} tasks at once, all or none, and {WIDEST:,} may be: use chunks")
    for root in roots:
        root.id = node_id(graph.id, root.options.place.node)  # type: ignore[union-attr]  # each of them has a place
    first, stored = roots[0], app.pipeline.state_out(KIND, graph.id, graph.pack())
    body, most = _encode(Begin(stored, list(roots))), app.engine.broker.features.max_message
    if len(body) > most:
        raise MessageTooLarge(
            f"the canvas takes {len(body):,} bytes in one message, as it has to in a batch or transaction, and may "
            f"take {most:,}: store its data elsewhere and pass keys"
        )
    return Message(
        VERSION,
        BEGIN,
        body,
        beginning_id(graph.id),
        first.queue,
        first.priority,
        first.namespace,
        content_type="msgpack",
        options=Options(place=Place(graph.id, graph.last)),
        sent=first.sent,
    )


def begun(message: Message, place: Place) -> tuple[Effect, ...]:
    """What such a message brings about. Raises `DecodeError`."""
    try:
        begin = _decode(message.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"not the beginning of a canvas: {error}") from error
    return Put(graph_key(place.graph), begin.graph, 0), *map(Publish, begin.roots)
