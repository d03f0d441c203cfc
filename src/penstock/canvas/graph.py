"""The graph that every canvas becomes: nodes, what follows each, and what is gathered. A value, stored once; no I/O.

A node is one task. After it come edges: to another node, which is given its value, or into a gathering of many values,
which is complete when every member has ended, and then goes to one node. So every node ends exactly once, every
gathering is completed, and the one node `last`, which nothing follows, ends after all others: with it goes the graph.
Nodes are numbers. Neighbours that are followed by the same share one span, so that a group of any size is a few bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.codec import ROOM
from penstock.errors import DecodeError, MessageTooLarge
from penstock.message import Message, Options, Place, node_id

VERSION = 1
MAX_BYTES = (4 << 20) - ROOM
"""Of a stored graph: with a signature it is what every engine takes as one value of the shared state."""
KIND = "graph"
"""What a signature says that it is."""
RELAY = "penstock.relay"
"""The task of a node that only hands on what it is given."""
BEGIN = "penstock.begin"
"""The task of a message that holds a whole canvas."""
VALUE, VALUES = "value", "values"
"""What a bridge hands over; see `Place.bridge`."""
END = "penstock.end"
"""The task of the last node of a graph that has several ends."""


class Go(Struct, array_like=True, frozen=True, tag=0, gc=False):
    """To a node of its own."""

    node: int


class Into(Struct, array_like=True, frozen=True, tag=1, gc=False):
    """Into a gathering, as its member `index` (that of the first node of a span; others follow)."""

    gathering: int
    index: int


Edge = Go | Into


class Span(Struct, array_like=True, frozen=True):
    """`count` nodes from `first` on. `errors` are the nodes called when one of them fails."""

    first: int
    count: int
    next: tuple[Edge, ...] = ()
    errors: tuple[int, ...] = ()


class Gathering(Struct, array_like=True, frozen=True):
    """`size` values for the node `then`, encoded as `content_type`; with `bare` only that they are there."""

    size: int
    then: int
    content_type: str = "json"
    bare: bool = False


class Call(Struct, array_like=True, frozen=True):
    """How a node's task is called. With a `head`, a value goes between it and the message's body.

    `delay` and `lifetime` are in seconds from its publish. With `outer` it is no node of this graph, but ends that one
    of another, in which all of this graph stands in the place of a task.
    """

    message: Message
    head: bytes | None = None
    delay: float | None = None
    lifetime: float | None = None
    outer: Place | None = None


class Stored(Struct, array_like=True):
    version: int
    id: str
    spans: list[Span]
    calls: dict[int, Call]
    gatherings: list[Gathering]
    last: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode


class Graph:
    """One graph. Immutable by convention."""

    def __init__(
        self, id: str, spans: Sequence[Span], calls: Mapping[int, Call], gatherings: Sequence[Gathering], last: int
    ) -> None:
        self.id = id
        self.spans = spans
        self.calls = calls
        self.gatherings = gatherings
        self.last = last
        self._firsts = [span.first for span in spans]
        self._thens: dict[int, Message] = {}

    def at(self, node: int) -> Span:
        """The span of a node. Raises `DecodeError` for a number that is not in this graph."""
        place = bisect_right(self._firsts, node) - 1
        if place < 0 or node >= self.spans[place].first + self.spans[place].count:
            raise DecodeError(f"graph {self.id} has no node {node}")
        return self.spans[place]

    def call(self, node: int) -> Call:
        """Raises `DecodeError` for a node that is published with the graph, not by those before it."""
        call = self.calls.get(node)
        if call is None:
            raise DecodeError(f"graph {self.id} has no call of node {node}")
        return call

    def message(self, node: int, value: bytes, now: float, parent: str | None) -> Message:
        """The message of a node, given the encoded value of the one before."""
        call = self.call(node)
        body = call.message.body if call.head is None else call.head + value + call.message.body
        return self._of(node, call, body, Place(self.id, node), now, parent)

    def gathered(self, number: int, now: float) -> Message:
        """The message that follows a gathering; whoever gathers puts in the values."""
        cached = self._thens.get(number)
        if cached is not None:
            return cached
        node = self.gatherings[number].then
        call = self.call(node)
        body = call.message.body
        place = Place(self.id, node, body) if call.head is None else Place(self.id, node, call.head, body)
        message = self._of(node, call, b"", place, now, None)
        message.content_type = self.gatherings[number].content_type
        if call.delay is None and call.lifetime is None:
            self._thens[number] = message
        return message

    def _of(self, node: int, call: Call, body: bytes, place: Place, now: float, parent: str | None) -> Message:
        message = call.message
        options = message.options or Options()
        return replace(
            message,
            id=node_id(self.id, node),
            body=body,
            eta=message.eta if call.delay is None else now + call.delay,
            expires=message.expires if call.lifetime is None else now + call.lifetime,
            options=replace(options, place=call.outer or place, parent_id=parent),
            sent=now,
        )

    def pack(self) -> bytes:
        """The stored form. Raises `MessageTooLarge`."""
        data = _encode(Stored(VERSION, self.id, list(self.spans), dict(self.calls), list(self.gatherings), self.last))
        if len(data) > MAX_BYTES:
            raise MessageTooLarge(
                f"the canvas takes {len(data):,} bytes besides its first tasks, and may take {MAX_BYTES:,}: store its "
                "data elsewhere and pass keys, or put a large group first, whose calls are published by themselves"
            )
        return data


def read_graph(data: bytes) -> Graph:
    """Raises `DecodeError` for what is damaged, or of a version that this release does not know."""
    try:
        stored = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a graph: {error}") from error
    if stored.version > VERSION:
        raise DecodeError(f"graph of version {stored.version}; this release reads up to {VERSION}: upgrade penstock")
    _check(stored)
    return Graph(stored.id, stored.spans, stored.calls, stored.gatherings, stored.last)


def _check(stored: Stored) -> None:
    """Raise `DecodeError` for a graph with an edge to nowhere: whoever follows it need not look."""
    calls, gatherings, end = stored.calls, len(stored.gatherings), 0
    for span in stored.spans:
        goes = all(
            edge.node in calls if isinstance(edge, Go) else 0 <= edge.gathering < gatherings for edge in span.next
        )
        if span.first < end or span.count < 1 or not goes or not all(node in calls for node in span.errors):
            raise DecodeError(f"not a graph: the nodes from {span.first} on lead nowhere")
        end = span.first + span.count
    if not all(gathering.size >= 1 and gathering.then in calls for gathering in stored.gatherings):
        raise DecodeError("not a graph: a gathering leads nowhere")
