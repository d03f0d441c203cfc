"""The graph as a value, and what a worker makes of one, or of a message, that nobody of ours wrote."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from penstock import State, chain, chord, group
from penstock.canvas.compile import Compiler
from penstock.canvas.graph import END, RELAY, VERSION, Gathering, Go, Graph, Into, Span, Stored, read_graph
from penstock.canvas.messages import Messages
from penstock.errors import DecodeError
from penstock.message import Fate, Message, Options, Place, graph_key, graph_of, node_id
from penstock.worker.graphs import Graphs
from tests.unit.canvas.workshop import Workshop

GRAPH = "0123456789abcdef" * 2


@pytest.fixture
def memory() -> Workshop:
    return Workshop("memory://")


def graph_for(shop: Workshop, canvas: Any) -> Graph:
    graph = Compiler().compile(canvas, GRAPH, Messages(shop.app)).graph
    assert graph is not None
    return graph


def test_it_is_read_as_it_was_stored(memory: Workshop) -> None:
    shop = memory
    canvas = chain(shop.add.s(1, 1), group(shop.add.s(1), shop.add.s(2).set(countdown=5)), shop.total.s())
    graph = graph_for(shop, canvas.on_error(shop.tell.s()))
    again = read_graph(graph.pack())
    assert (again.id, again.spans, again.gatherings, again.last) == (GRAPH, graph.spans, graph.gatherings, graph.last)
    assert again.calls == graph.calls


def test_nodes_and_edges(memory: Workshop) -> None:
    shop = memory
    graph = graph_for(shop, chord([shop.add.s(n, n) for n in range(3)], shop.total.s()))
    assert graph.spans == [Span(0, 3, (Into(0, 0),)), Span(3, 1)]
    assert (graph.gatherings, graph.last) == ([Gathering(3, 3)], 3)
    several = graph_for(shop, group(chain(shop.give.s(1), shop.give.s()), chain(shop.give.s(2), shop.give.s())))
    assert several.calls[several.last].message.task == END
    assert several.gatherings == [Gathering(2, several.last, bare=True)]
    wide = graph_for(shop, chain(group(shop.give.s(1), shop.give.s(2)), group(shop.give.s(), shop.give.s())))
    assert RELAY in {call.message.task for call in wide.calls.values()}


@pytest.mark.parametrize("node", [-1, 4, 1 << 40])
def test_a_node_that_is_not_there(memory: Workshop, node: int) -> None:
    graph = graph_for(memory, chord([memory.add.s(n, n) for n in range(3)], memory.total.s()))
    with pytest.raises(DecodeError, match="has no node"):
        graph.at(node)
    with pytest.raises(DecodeError, match="has no call"):
        graph.call(0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": VERSION + 1}, "upgrade penstock"),
        ({"spans": [Span(0, 1, (Go(7),))]}, "lead nowhere"),
        ({"spans": [Span(0, 1, (Into(1, 0),))]}, "lead nowhere"),
        ({"spans": [Span(0, 1, (Into(-1, 0),))]}, "lead nowhere"),
        ({"spans": [Span(0, 1, (), (9,))]}, "lead nowhere"),
        ({"spans": [Span(0, 2), Span(1, 2)]}, "lead nowhere"),
        ({"spans": [Span(0, 0)]}, "lead nowhere"),
        ({"gatherings": [Gathering(1, 9)]}, "gathering leads nowhere"),
        ({"gatherings": [Gathering(0, 1)]}, "gathering leads nowhere"),
    ],
)
def test_a_graph_that_leads_nowhere_is_not_read(memory: Workshop, change: dict[str, Any], why: str) -> None:
    graph = graph_for(memory, chain(memory.give.s(1), memory.give.s()))
    stored = Stored(VERSION, GRAPH, list(graph.spans), dict(graph.calls), list(graph.gatherings), graph.last)
    with pytest.raises(DecodeError, match=why):
        read_graph(msgspec.msgpack.encode(replace(stored, **change)))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"[]", b"\x91\x01", b"\x96\x01\xa0\x90\x80\x90\xc0"])
def test_what_is_no_graph(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a graph"):
        read_graph(data)


def test_ids_tell_their_node() -> None:
    assert graph_of(node_id(GRAPH, 12)) == (GRAPH, 12)
    for node in ("", "x", "-1", "1.revoked", "²", "9" * 10):
        assert graph_of(f"{GRAPH}.{node}") is None
    assert graph_of(GRAPH) is graph_of("x.1") is graph_of("f" * 31 + ".1") is None


# -- messages that somebody else wrote


def forged(shop: Workshop, task: str, body: bytes, place: Place, task_id: str = "forged") -> State:
    message = Message(1, task, body, task_id, options=Options(place=place))
    shop.app.engine.run(shop.app.broker.publish([message], 5.0))
    neighbour = shop.give.delay("neighbour")
    shop.run()
    assert neighbour.get(timeout=5) == "neighbour"
    return shop.app.AsyncResult(task_id).state


@pytest.mark.parametrize("graph", ["", "x" * 5_000, "../" * 4, GRAPH])
def test_a_graph_of_a_strange_name(shop: Workshop, graph: str) -> None:
    assert forged(shop, "give", b"[[1],{}]", Place(graph, 0)) is State.SUCCESS


@pytest.mark.parametrize(
    "fate",
    [Fate("PENDING", b"{}", 0), Fate("", b"", 0), Fate("FAILURE", b"[1", 0), Fate("REVOKED", b'"x"', 0)],
)
def test_a_fate_that_is_none(shop: Workshop, fate: Fate) -> None:
    assert forged(shop, "give", b"[[],{}]", Place(GRAPH, 0, fate=fate)) is State.FAILURE


def test_a_fate_from_a_node_that_is_not_there(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.give.s()).delay()
    assert result._place is not None
    error = b'{"type":"ValueError","module":"builtins","message":"x","args":["x"]}'
    place = Place(result._place.graph, 0, fate=Fate("FAILURE", error, 1 << 40))
    assert forged(shop, "give", b"[[],{}]", place) is State.FAILURE


@pytest.mark.parametrize("body", [b"", b"[1", b'[!"x"]', b"{}]", b"\xff"])
def test_a_relay_of_what_is_no_value(shop: Workshop, body: bytes) -> None:
    assert forged(shop, RELAY, body, Place(GRAPH, 0)) is State.FAILURE
    assert forged(shop, RELAY, body, Place(GRAPH, 0, b"", b""), "gathered") is State.FAILURE


@pytest.mark.parametrize("body", [b"[[],{}]", b"\xc1", b'[!"AAAA"]'])
def test_gathered_values_that_are_none(shop: Workshop, body: bytes) -> None:
    assert forged(shop, "total", body, Place(GRAPH, 0, b"[[", b"],{}]")) is State.FAILURE


def test_a_stored_graph_that_is_damaged(shop: Workshop) -> None:
    shop.app.engine.run(shop.app.engine.coordinator.put(graph_key(GRAPH), b"?"))
    assert forged(shop, "give", b"[[1],{}]", Place(GRAPH, 0)) is State.SUCCESS


def test_a_worker_keeps_a_bounded_number_of_graphs(memory: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.worker.graphs.KEPT", 3)
    graphs = Graphs(memory.app)
    for _ in range(5):
        result = chain(memory.give.s(1), memory.give.s()).delay()
        assert result._place is not None
        assert graphs._get(result._place.graph) is not None
    assert len(graphs._kept) == 3
    assert graphs._bytes == sum(size for _, size in graphs._kept.values())


def test_later_tasks_go_where_their_routes_say() -> None:
    def by_arguments(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return {"queue": f"{name}-{len(args)}", "expires": 60} if name == "add" else None

    shop = Workshop("memory://", task_routes=[by_arguments, {"total": {"queue": "sums", "priority": 8}}])
    wide = chain(group(shop.add.s(1, 1), shop.add.s(2, 2)), group(shop.total.s(), shop.total.s()), shop.add.si(1, 2))
    graph = graph_for(shop, wide)
    found = {(call.message.task, call.message.queue, call.message.priority) for call in graph.calls.values()}
    assert found == {("total", "sums", 8), ("add", "add-2", 5), (RELAY, "add-2", 5)}
    [later] = [call for call in graph.calls.values() if call.message.task == "add"]
    assert (later.lifetime, later.message.expires) == (60.0, None)
    assert graph_for(shop, chain(shop.give.s(1), shop.add.s(1))).calls[1].message.queue == "add-1"
