"""Revoking a part of a canvas: what follows it must learn of that, also where no worker had it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from penstock import apart
from penstock.broker import Accepted, Key
from penstock.canvas.follow import NO_ARGUMENTS, fate_of, stand_in
from penstock.canvas.graph import KIND, Graph, read_graph
from penstock.codec import failure
from penstock.coordinator import Revoked
from penstock.errors import TaskRevoked, Unsupported
from penstock.message import Message, Options, Place, graph_key, node_id
from penstock.outcome import State

if TYPE_CHECKING:
    from penstock.app import Penstock

TIMEOUT = 30.0
CLOSED_AFTER = 86_400.0
"""Seconds after which a graph goes of which a part was revoked before it was published: nobody ends last then."""


def revocation(app: Penstock, key: Key, place: Place, now: float, terminate: bool) -> apart.Plan[Revoked]:
    """`apart.revocation` of a node. One that is still to be published ends at once, and what follows it; those before
    it go on."""
    engine, results = app.engine, app.results
    holder = apart.coordinating(engine, results)
    found = None if holder is None else (yield holder, holder.coordinator.get(graph_key(place.graph)))
    if found is None:
        [answer] = yield from apart.revocation(engine, results, [key], now, terminate)
        return answer
    if not engine.broker.features.knows_ids:
        raise Unsupported(
            f"{engine.broker.features.engine} knows no ids: a part of a canvas cannot be revoked while others wait"
        )
    graph = read_graph(app.pipeline.state_in(KIND, place.graph, found[0]))
    end = _Ended(graph, place, engine.broker.public_id(key), now)
    [report] = yield from apart.seen(engine, results, [key])
    if report.state is State.UNKNOWN and place.node in graph.calls:
        [accepted, *_] = yield engine, engine.broker.follow_up(_signed(app, end.early()), TIMEOUT)
        if isinstance(accepted, Accepted):
            return Revoked.REMEMBERED
        # It was published just now.
    [answer] = yield from apart.revocation(engine, results, [key], now, terminate)
    [report] = yield from apart.seen(engine, results, [key])
    if answer is Revoked.REMOVED or report.state is State.REVOKED:
        # Also where it had been revoked before: that caller may have died in between, and a repeat is recognised.
        yield engine, engine.broker.follow_up(_signed(app, [end.instead()]), TIMEOUT)
    return answer


def _signed(app: Penstock, messages: list[Message]) -> list[Message]:
    if app.pipeline.trust is not None:
        for message in messages:
            app.pipeline.trust.sign(message)
    return messages


class _Ended:
    """The messages that end a revoked node's part."""

    def __init__(self, graph: Graph, place: Place, task_id: str, now: float) -> None:
        self._graph = graph
        self._place = place
        self._now = now
        call = graph.calls.get(place.node)
        self._message: Message = (call or next(iter(graph.calls.values()))).message
        why = failure(TaskRevoked("revoked before it ran"))
        self._fate = fate_of(State.REVOKED, why, place.node, self._message.task if call else "", task_id)

    def instead(self) -> Message:
        """For one that was removed from its queue."""
        name = f"{node_id(self._place.graph, self._place.node)}.revoked"
        return stand_in(self._message, self._place, self._fate, name)

    def early(self) -> list[Message]:
        """For one that is not published yet: itself, as ended; and, for later, what closes the graph."""
        graph, node = self._place.graph, self._place.node
        place = Place(graph, node, fate=replace(self._fate, early=True))
        options = replace(self._message.options or Options(), place=place)
        itself = replace(
            self._message,
            id=node_id(graph, node),
            body=NO_ARGUMENTS,
            content_type="json",
            eta=None,
            expires=None,
            options=options,
            sent=self._now,
        )
        last = Place(graph, self._graph.last)
        closing = stand_in(self._message, last, self._fate, f"{node_id(graph, self._graph.last)}.closed")
        return [itself, replace(closing, eta=self._now + CLOSED_AFTER)]
