"""What follows the end of a node: pure, from the graph, the node and how it ended, to effects of its settlement.

| the node ended in | what comes after it | its `link_error` |
|---|---|---|
| SUCCESS | is given its value | is not called |
| FAILURE | ends in FAILURE, with the same error, unstarted | is called |
| REVOKED, or by `Ignore` | ends in REVOKED, unstarted | is not called |

A gathering waits for all of its members, however they end, and then ends as the first that failed; else as the first
that was revoked. What ends unstarted is a message all the same, which the next worker settles: so a long chain ends
link by link, in small transactions, and everything that ends says so by the same way.

Ids are made of graph and node, so that whatever is published twice is recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from penstock.canvas.graph import Gathering, Go, Graph, Into, Span
from penstock.codec import fate_item, inherited, joinable, read_failure, together, transcoded
from penstock.effects import Effect, Join, Publish, Put
from penstock.errors import MessageTooLarge
from penstock.message import Fate, Message, Options, Place, graph_key, node_id
from penstock.outcome import State

NO_ARGUMENTS = b"[[],{}]"


def succeeded(
    graph: Graph,
    node: int,
    value: bytes,
    content_type: str,
    name: Callable[[], str],
    now: float,
    largest: int,
    more: Sequence[bytes] = (),
) -> list[Effect]:
    """After a value, encoded as `content_type`, of the task whose public id is `name()`; a gathering is given `more`
    right after it. Raises `MessageTooLarge` for one that no message of `largest` bytes can carry, `EncodeError` for one
    that the next task's format cannot."""
    span = graph.at(node)
    effects: list[Effect] = []
    for edge in span.next:
        if type(edge) is Into:
            gathering = graph.gatherings[edge.gathering]
            item = _bare(gathering) if gathering.bare else _item(gathering, [value, *more], content_type)
            _check_size(graph, gathering.then, item, largest)
            effects.append(_join(graph, edge, span, node, item, now))
        elif type(edge) is Go:
            call = graph.call(edge.node)
            item = transcoded(value, content_type, call.message.content_type)
            _check_size(graph, edge.node, item, largest)
            effects.append(Publish(graph.message(edge.node, item, now, name())))
    return effects + _close(graph, node)


def ended(graph: Graph, node: int, fate: Fate, message: Message, task_id: str, now: float) -> list[Effect]:
    """After an end without a value. `message` is the one that ended, `fate` what becomes of those after it."""
    span = graph.at(node)
    effects: list[Effect] = []
    if fate.state == State.FAILURE:
        told = graph.at(fate.origin).errors if fate.origin != node else ()
        payload = None
        for number in span.errors:
            if number not in told:  # it was called for what failed first
                payload = payload or _told(message, task_id, fate)
                effects.append(Publish(_error_call(graph, number, payload, now, task_id)))
    for edge in span.next:
        if type(edge) is Into:
            gathering = graph.gatherings[edge.gathering]
            item = _bare(gathering) if gathering.bare else fate_item(fate, gathering.content_type)
            effects.append(_join(graph, edge, span, node, item, now))
        elif type(edge) is Go:
            effects.append(Publish(_doomed(graph, edge.node, fate, message, now, task_id)))
    return effects if fate.early else effects + _close(graph, node)


def fate_of(state: State, failure: bytes, node: int, task: str, task_id: str) -> Fate:
    """What the end of this node means for those after it."""
    how = "failed" if state is State.FAILURE else "was revoked, or ignored,"
    return Fate(state.value, inherited(failure, f"task {task}[{task_id}] {how} before this one could start"), node)


def stand_in(message: Message, place: Place, fate: Fate, name: str) -> Message:
    """A message that does for a node what its own worker would have done, had it not been revoked while it waited."""
    options = replace(message.options or Options(), place=Place(place.graph, place.node, fate=fate, instead=True))
    return replace(message, id=name, body=NO_ARGUMENTS, eta=None, expires=None, guards=(), options=options)


def _bare(gathering: Gathering) -> bytes:
    """What stands for a member of a gathering whose values nobody wants."""
    return joinable(gathering.content_type).encode(None)


def _item(gathering: Gathering, values: Sequence[bytes], content_type: str) -> bytes:
    items = [transcoded(value, content_type, gathering.content_type) for value in values]
    return items[0] if len(items) == 1 else together(items, gathering.content_type)


def _join(graph: Graph, edge: Into, span: Span, node: int, item: bytes, now: float) -> Join:
    gathering = graph.gatherings[edge.gathering]
    name, index = f"{graph.id}/{edge.gathering}", edge.index + node - span.first
    return Join(name, index, item, gathering.size, graph.gathered(edge.gathering, now))


def _doomed(graph: Graph, node: int, fate: Fate, after: Message, now: float, parent: str) -> Message:
    """It goes where it is settled soon: to the queue that was just served."""
    call = graph.call(node)
    message, place = call.message, Place(graph.id, node, fate=fate)
    if call.outer is not None:  # there, this is how the node itself ended
        place = replace(call.outer, fate=replace(fate, origin=call.outer.node, early=False))
    options = replace(message.options or Options(), place=place, parent_id=parent)
    return replace(
        message,
        id=node_id(graph.id, node),
        body=NO_ARGUMENTS,
        content_type="json",
        queue=after.queue,
        partition=after.partition,
        eta=None,
        expires=None,
        guards=(),
        options=options,
        sent=now,
    )


def _error_call(graph: Graph, node: int, payload: dict[str, str], now: float, parent: str) -> Message:
    """A call outside of the graph: nothing waits for it."""
    form = joinable(graph.call(node).message.content_type)
    message = graph.message(node, form.encode(payload), now, parent)
    return replace(message, options=replace(message.options or Options(), place=None))


def _told(message: Message, task_id: str, fate: Fate) -> dict[str, str]:
    error = read_failure(fate.failure)
    return {"id": task_id, "task": message.task, "error": error.type, "message": error.message, "note": error.traceback}


def _close(graph: Graph, node: int) -> list[Effect]:
    """With its last node the graph goes."""
    return [Put(graph_key(graph.id), None)] if node == graph.last else []


def _check_size(graph: Graph, node: int, item: bytes, largest: int) -> None:
    call = graph.call(node)
    size = len(call.head or b"") + len(item) + len(call.message.body)
    if size > largest:
        raise MessageTooLarge(
            f"the value takes {len(item):,} bytes, with which the message of {call.message.task!r} after it "
            f"would be larger than {largest:,}: store the data elsewhere and return its key"
        )
