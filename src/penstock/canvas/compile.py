"""From a canvas to its graph: checked as a whole, before anything is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from penstock.canvas.calls import NOTHING, Canvas, Signature, chain, chord, group
from penstock.canvas.graph import Call, Edge, Gathering, Go, Graph, Into, Span
from penstock.canvas.nesting import measure
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.canvas.messages import Messages

WIDEST = 10_000
"""Tasks that may follow one task: they are published in one transaction. A group that comes first may be larger."""
FIRST_ONLY = frozenset({"countdown", "eta"})
"""Options of something composed that are for its first tasks."""
EMPTY = b"[]"
"""The value of a group without members."""


class Leaf(Struct, gc=False):
    """The result of one node. `parent`: what it was given."""

    node: int
    parent: Shape | None = None


class Many(Struct):
    """The results of a group's members."""

    members: list[Shape]
    parent: Shape | None = None


Shape = Leaf | Many


class Node(Struct, gc=False):
    """A node while the graph is made. `call` is `None` for a relay, whose value is `constant`, as JSON, where it is
    given."""

    call: Signature[Any] | None
    options: Mapping[str, Any]
    errors: tuple[int, ...]
    next: tuple[Edge, ...] = ()
    constant: bytes | None = None
    alone: bool = False
    """Nothing is before it, nothing after it: it is no part of the graph."""
    is_error: bool = False
    is_end: bool = False


class Piece(Struct):
    """A part that is made: the nodes that it begins with, and its result."""

    entries: list[int]
    shape: Shape


class Compiled(Struct):
    """`roots` are published by the caller, the others by those before them. `graph` is `None` where nothing follows
    anything."""

    roots: list[int]
    shape: Shape
    nodes: list[Node]
    graph: Graph | None = None


class Compiler:
    """Makes one graph."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.gatherings: list[tuple[int, int, bool]] = []
        """Size, node that follows, whether values are dropped."""

    def compile(self, canvas: Canvas[Any], graph_id: str, messages: Messages) -> Compiled:
        """Raises `ConfigError`, `UnknownTask`, `TypeError`, `EncodeError` for what cannot be run to its end."""
        measure(canvas)
        piece = self._top(canvas)
        compiled = Compiled(piece.entries, piece.shape, self.nodes)
        if any(not node.alone for node in self.nodes):
            compiled.graph = self._graph(graph_id, set(piece.entries), messages)
        return compiled

    def within(
        self, canvas: Canvas[Any], options: Mapping[str, Any], graph_id: str, messages: Messages, bridge: Call | None
    ) -> tuple[Compiled, int]:
        """For what a worker publishes while another graph waits for it, or nobody does: all of it is a graph. Returns
        the node, too, whose value is that of the whole; `bridge` is given that. Raises as `compile`, and `ConfigError`
        for what is too wide."""
        measure(canvas)
        piece = self.build(canvas, options, ())
        if len(piece.entries) > WIDEST:
            raise ConfigError(f"{len(piece.entries):,} tasks at once, and a task can publish {WIDEST:,}: use chunks")
        if isinstance(piece.shape, Leaf):
            end = piece.shape.node
        else:
            end = self._relay()
            self._gather(piece.shape, end)
        compiled = Compiled(piece.entries, piece.shape, self.nodes)
        compiled.graph = self._graph(graph_id, set(piece.entries), messages, (end, bridge))
        return compiled, end

    def _top(self, canvas: Canvas[Any]) -> Piece:
        if isinstance(canvas, group) and not canvas.errors:
            return self._beside(canvas.tasks, dict(canvas.options), (), alone=True)
        return self.build(canvas, NOTHING, ())

    def _beside(
        self, tasks: Sequence[Canvas[Any]], options: Mapping[str, Any], errors: tuple[int, ...], *, alone: bool
    ) -> Piece:
        """All of them at once. `alone`: nothing is before them, nor after them all."""
        entries: list[int] = []
        members: list[Shape] = []
        for task in tasks:
            if isinstance(task, Signature) and not (task.links or task.errors):
                # What nearly all members are; a group may be large.
                number = self._add(Node(task, _over(options, task.options), errors, alone=alone))
                entries.append(number)
                members.append(Leaf(number))
            else:
                piece = self.build(task, options, errors)
                entries += piece.entries
                members.append(piece.shape)
        return Piece(entries, Many(members))

    # -- parts

    def build(self, canvas: Canvas[Any], options: Mapping[str, Any], errors: tuple[int, ...]) -> Piece:
        """`options` and `errors` are those of what it is a part of, all of which is measured."""
        options = _over(options, canvas.options)
        errors = (*errors, *(self._error(call) for call in canvas.errors))
        match canvas:
            case Signature():
                number = self._add(Node(canvas, options, errors))
                piece = Piece([number], Leaf(number))
            case chain():
                piece = self._chain(canvas.tasks, options, errors)
            case group():
                piece = self._group(canvas, options, errors)
            case chord():
                piece = self._chain(tuple(canvas.parts()), options, errors)
            case _:
                raise TypeError(f"a canvas of an unknown kind: {type(canvas).__name__}")
        for link in canvas.links:
            self._follow(piece.shape, self.build(link, NOTHING, ()))
        return piece

    def _chain(self, tasks: tuple[Canvas[Any], ...], options: Mapping[str, Any], errors: tuple[int, ...]) -> Piece:
        if not tasks:
            raise ConfigError("a chain has at least one task")
        first = last = self.build(tasks[0], options, errors)
        later = {name: value for name, value in options.items() if name not in FIRST_ONLY}
        for task in tasks[1:]:
            piece = self.build(task, later, errors)
            self._follow(last.shape, piece)
            piece.shape.parent = last.shape
            last = piece
        return Piece(first.entries, last.shape)

    def _group(self, canvas: group, options: Mapping[str, Any], errors: tuple[int, ...]) -> Piece:
        if not canvas.tasks:
            number = self._add(Node(None, options, errors, constant=EMPTY))
            return Piece([number], Leaf(number))
        return self._beside(canvas.tasks, options, errors, alone=False)

    def _error(self, call: Signature[Any]) -> int:
        if call.links or call.errors:
            raise ConfigError(f"{call!r} is called when something failed: nothing can follow it")
        return self._add(Node(call, call.options, (), is_error=True))

    # -- edges

    def _follow(self, shape: Shape, piece: Piece) -> None:
        """`piece` is given the value of `shape`."""
        if isinstance(shape, Leaf):
            self._edges(shape.node, [Go(entry) for entry in piece.entries])
        elif len(piece.entries) == 1:
            self._gather(shape, piece.entries[0])
        else:
            relay = self._relay()
            self._gather(shape, relay)
            self._edges(relay, [Go(entry) for entry in piece.entries])

    def _gather(self, shape: Many, then: int, *, bare: bool = False) -> None:
        number = len(self.gatherings)
        self.gatherings.append((len(shape.members), then, bare))
        for index, member in enumerate(shape.members):
            if isinstance(member, Leaf):
                self._edges(member.node, [Into(number, index)])
            else:  # a list in the list
                relay = self._relay()
                self._gather(member, relay)
                self._edges(relay, [Into(number, index)])

    def _edges(self, node: int, edges: list[Edge]) -> None:
        known = self.nodes[node]
        known.next = (*known.next, *edges)
        if len(known.next) > WIDEST:
            raise ConfigError(
                f"{len(known.next):,} tasks follow one task, and {WIDEST:,} may: put that group first, or use chunks"
            )

    def _relay(self) -> int:
        return self._add(Node(None, NOTHING, ()))

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    # -- the whole

    def _graph(
        self, graph_id: str, roots: set[int], messages: Messages, way_out: tuple[int, Call | None] = (0, None)
    ) -> Graph:
        ends = [number for number, node in enumerate(self.nodes) if not (node.next or node.alone or node.is_error)]
        last = ends[0]
        if len(ends) > 1:
            last = self._relay()
            self.nodes[last].is_end = True
            self._gather(Many([Leaf(end) for end in ends]), last, bare=True)
        calls = {
            number: messages.call(graph_id, node.call, node.options)
            for number, node in enumerate(self.nodes)
            if not (node.call is None or node.alone or number in roots)
        }
        relays = [number for number, node in enumerate(self.nodes) if node.call is None and number not in roots]
        before = self._before() if relays else {}
        for number in relays:
            near = self._task_near(number, before)
            way = calls[near].message if near in calls else messages.root(graph_id, near, self.nodes[near])
            calls[number] = messages.relay(graph_id, self.nodes[number], way)
        end, bridge = way_out
        if bridge is not None:  # no node of this graph: it has no part in what the last one is
            number = self._relay()
            self._edges(end, [Go(number)])
            calls[number] = bridge
        gatherings = [
            Gathering(size, then, calls[then].message.content_type, bare) for size, then, bare in self.gatherings
        ]
        return Graph(graph_id, list(self._spans()), calls, gatherings, last)

    def _before(self) -> dict[int, int]:
        """For each node one of those before it."""
        before = {}
        for number, node in enumerate(self.nodes):
            for edge in node.next:
                before[self.gatherings[edge.gathering][1] if isinstance(edge, Into) else edge.node] = number
        return before

    def _task_near(self, number: int, before: Mapping[int, int]) -> int:
        """The next node before a relay that has a task, to whose queue it goes; else the first one."""
        while self.nodes[number].call is None and number in before:
            number = before[number]
        return number

    def _spans(self) -> Iterator[Span]:
        first, count = 0, 0
        for number, node in enumerate(self.nodes):
            if count and _goes_on(self.nodes[first], node, number - first, first + count == number):
                count += 1
                continue
            if count:
                yield Span(first, count, self.nodes[first].next, self.nodes[first].errors)
            first, count = number, 0 if node.alone else 1
        if count:
            yield Span(first, count, self.nodes[first].next, self.nodes[first].errors)


def _goes_on(first: Node, node: Node, distance: int, adjacent: bool) -> bool:
    """Whether `node` is followed by the same as `first`, as its member `distance` further on."""
    if not adjacent or node.alone or first.errors != node.errors or len(first.next) != len(node.next):
        return False
    if len(node.next) == 1:  # what nearly all are; a group may be large
        one, other = first.next[0], node.next[0]
        if type(one) is not Into or type(other) is not Into:
            return False
        return one.gathering == other.gathering and one.index + distance == other.index
    for one, other in zip(first.next, node.next, strict=True):
        if not (isinstance(one, Into) and isinstance(other, Into) and one.gathering == other.gathering):
            return False
        if one.index + distance != other.index:
            return False
    return True


def _over(outer: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of a part, over those of the whole; headers are put together."""
    if not outer or not own:
        return own or outer
    merged = {**outer, **own}
    if outer.get("headers") and own.get("headers"):
        merged["headers"] = {**outer["headers"], **own["headers"]}
    return merged
