"""What each shape of a canvas gives, run by a worker on an engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import AsyncResult, GroupResult, Penstock, State, chain, chord, group
from penstock.canvas import Canvas
from penstock.message import graph_key, graph_of
from penstock.worker.settings import WorkerOptions
from penstock.worker.worker import Worker
from tests.unit.canvas.workshop import Workshop


def graph_of_result(result: Any) -> str:
    leaf = result.leaves()[0] if isinstance(result, GroupResult) else result
    return str(leaf._place.graph)


def is_stored(app: Penstock, graph: str) -> bool:
    return app.engine.run(app.engine.coordinator.get(graph_key(graph))) is not None


def value_of(shop: Workshop, canvas: Canvas[Any]) -> Any:
    """Run to its end; its graph must be gone with it."""
    result = canvas.delay()
    shop.run()
    leaves = result.leaves() if isinstance(result, GroupResult) else [result]
    assert not any(is_stored(shop.app, leaf._place.graph) for leaf in leaves if leaf._place is not None)
    return result.get(timeout=5)


def test_a_chain_hands_on_its_values(shop: Workshop) -> None:
    assert value_of(shop, chain(shop.add.s(1, 2), shop.add.s(3), shop.add.s(4))) == 10
    assert shop.made == [("add", 1, 2), ("add", 3, 3), ("add", 6, 4)]


def test_an_immutable_link_takes_no_value(shop: Workshop) -> None:
    assert value_of(shop, shop.add.s(1, 2) | shop.add.si(5, 5) | shop.add.s(1)) == 11


def test_named_arguments_come_after_the_value(shop: Workshop) -> None:
    assert value_of(shop, chain(shop.give.s([1, 2]), shop.total.s(start=10))) == 13


def test_a_group_is_a_list_in_order(shop: Workshop) -> None:
    result = group(shop.add.s(number, number) for number in range(5)).delay()
    assert isinstance(result, GroupResult)
    shop.run()
    assert result.get(timeout=5) == [0, 2, 4, 6, 8]


def test_a_group_with_nothing_after_it_stores_no_graph(shop: Workshop) -> None:
    result = group(shop.add.s(1, 1), shop.add.s(2, 2)).delay()
    assert [leaf._place for leaf in result.leaves()] == [None, None]


def test_a_chord_gathers(shop: Workshop) -> None:
    assert value_of(shop, chord([shop.add.s(number, 1) for number in range(4)], shop.total.s())) == 10
    assert shop.count("total") == 1


def test_a_chord_is_published_when_it_gets_its_body(shop: Workshop) -> None:
    result = chord([shop.give.s(1), shop.give.s(2)])(shop.total.s())
    shop.run()
    assert result.get(timeout=5) == 3


def test_a_group_before_something_is_a_chord(shop: Workshop) -> None:
    canvas = group(shop.give.s(1), shop.give.s(2)) | shop.total.s(start=10)
    assert isinstance(canvas, chord)
    assert value_of(shop, canvas) == 13


def test_a_body_that_takes_nothing_waits_all_the_same(shop: Workshop) -> None:
    assert value_of(shop, chord([shop.give.s(1), shop.give.s(2)], shop.add.si(5, 6))) == 11
    assert shop.made[-1] == ("add", 5, 6)


def test_a_chain_may_end_in_a_group(shop: Workshop) -> None:
    result = chain(shop.give.s(3), group(shop.add.s(1), shop.add.s(2))).delay()
    assert isinstance(result, GroupResult)
    assert [leaf.state for leaf in result.leaves()] == [State.PENDING, State.PENDING]
    graph = graph_of_result(result)
    shop.run()
    assert result.get(timeout=5) == [4, 5]
    assert not is_stored(shop.app, graph)


@pytest.mark.parametrize("wide", [1, 2, 5])
def test_groups_after_groups(shop: Workshop, wide: int) -> None:
    first = group(shop.give.s(number) for number in range(wide))
    assert value_of(shop, chain(first, group(shop.total.s(), shop.give.s()), shop.give.s())) == [
        sum(range(wide)),
        list(range(wide)),
    ]


def test_a_group_in_a_group_is_a_list_in_a_list(shop: Workshop) -> None:
    inner = group(shop.give.s(2), group(shop.give.s(3)))
    result = group(shop.give.s(1), inner).delay()
    shop.run()
    assert result.get(timeout=5) == [1, [2, [3]]]
    assert value_of(shop, chord([shop.give.s(1), inner], shop.give.s())) == [1, [2, [3]]]


def test_chords_in_groups_and_in_chords(shop: Workshop) -> None:
    small = chord([shop.give.s(1), shop.give.s(2)], shop.total.s())
    assert value_of(shop, chord([small, small, shop.give.s(10)], shop.total.s())) == 16
    assert value_of(shop, chain(shop.give.s(1), chord([shop.add.s(1), shop.add.s(2)], shop.total.s()))) == 5


def test_a_group_of_chains(shop: Workshop) -> None:
    one = chain(shop.give.s(1), shop.add.s(1))
    assert value_of(shop, group(one, chain(shop.give.s(5), shop.add.s(5), shop.add.s(5)), shop.give.s(0))) == [2, 15, 0]


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_group_is_an_empty_list(shop: Workshop, empty: Any) -> None:
    assert value_of(shop, chord(empty, shop.give.s())) == []
    assert value_of(shop, chain(shop.give.s(1), group(empty), shop.give.s())) == []
    assert shop.app.send(group(empty)).get(timeout=5) == []  # it has no task that knows its app


def test_values_go_from_one_format_to_the_other(shop: Workshop) -> None:
    assert value_of(shop, chain(shop.give.s(1), shop.pack.s(), shop.give.s())) == [1, "AA=="]
    assert value_of(shop, chord([shop.give.s(1), shop.pack.s(b"2")], shop.pack.s(b"3"))) == [[1, [b"2", b"\0"]], b"3"]


def test_links_are_called_too(shop: Workshop) -> None:
    first = shop.add.s(1, 2)
    assert first.link(shop.add.s(10)) == shop.add.s(10)
    first.link(chain(shop.add.s(20), shop.add.s(30)))
    assert value_of(shop, first) == 3
    assert sorted(shop.made) == [("add", 1, 2), ("add", 3, 10), ("add", 3, 20), ("add", 23, 30)]


def test_the_link_of_a_chain_is_after_its_last(shop: Workshop) -> None:
    whole = chain(shop.give.s(1), shop.add.s(1))
    whole.link(shop.add.s(40))
    assert value_of(shop, whole) == 2
    assert shop.made[-1] == ("add", 2, 40)


def test_map_starmap_and_chunks(shop: Workshop) -> None:
    assert value_of(shop, shop.give.map([1, "two", None])) == [1, "two", None]
    assert value_of(shop, shop.add.starmap([(1, 2), (3, 4)])) == [3, 7]
    chunked = shop.add.chunks(zip(range(10), range(10), strict=True), 4)
    assert [len(part.args[1]) for part in chunked.tasks] == [4, 4, 2]  # type: ignore[attr-defined]  # signatures
    result = chunked.delay()
    shop.run()
    assert result.get(timeout=5) == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert value_of(shop, chord(shop.add.chunks([(1, 1)], 1).group(), shop.give.s())) == [[2]]


def test_map_gives_functions_what_their_annotations_say(shop: Workshop) -> None:
    assert value_of(shop, shop.pack.starmap([(1, b"\1"), ({"x": 2}, b"\2")])) == [[1, "AQ=="], [{"x": 2}, "Ag=="]]


def test_arguments_of_delay_go_to_the_first_tasks(shop: Workshop) -> None:
    result = chain(shop.add.s(1), shop.add.s(1)).delay(5)
    both = group(shop.add.s(1), shop.add.s(2)).apply_async((10,), priority=7)
    called = chain(shop.add.s(1), shop.add.s(1))(7)
    shop.run()
    assert called.get(timeout=5) == 9
    assert result.get(timeout=5) == 7
    assert both.get(timeout=5) == [11, 12]


def test_results_know_what_was_before_them(shop: Workshop) -> None:
    result = chain(shop.give.s(1), group(shop.add.s(1), shop.add.s(2)), shop.total.s()).delay()
    shop.run()
    assert isinstance(result.parent, GroupResult)
    assert result.parent.get(timeout=5) == [2, 3]
    assert isinstance(result.parent.parent, AsyncResult)
    assert result.parent.parent.get(timeout=5) == 1
    assert result.parent.parent.parent is None


def test_what_is_not_published_yet_is_pending_and_can_be_waited_for(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1)).delay()
    assert result.state is State.PENDING
    same = shop.app.AsyncResult(result.id)
    assert same.state is State.PENDING
    assert graph_of(result.id) is not None
    shop.run()
    assert same.get(timeout=5) == 2
    assert shop.app.AsyncResult("0" * 32 + ".1").state is State.UNKNOWN


def test_a_retried_member_is_waited_for(shop: Workshop) -> None:
    assert value_of(shop, chord([shop.again.s(5), shop.give.s(1)], shop.total.s())) == 6
    assert shop.count("again") == 3


def test_delays_count_from_the_end_of_what_was_before(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1).set(countdown=3600), shop.add.s(1)).delay()
    shop.run()
    assert (result.state, result.parent.state) == (State.PENDING, State.PENDING)
    assert shop.made == [("give", 1)]
    assert shop.app.engine.run(shop.app.broker.depth("default")) == 1


def test_stamps_are_headers_of_every_task(shop: Workshop) -> None:
    seen: list[str | None] = []

    @shop.app.task(name="show", bind=True)
    def show(self: Any, value: Any = None) -> None:
        seen.append(self.request.headers.get("order"))

    canvas = chain(show.s(), group(show.s(), show.s()), show.s()).stamp(order="77")
    assert value_of(shop, canvas) is None
    assert seen == ["77"] * 4


def test_options_of_the_whole_are_those_of_its_parts(shop: Workshop) -> None:
    found: list[tuple[str, int]] = []

    @shop.app.task(name="look", bind=True)
    def look(self: Any, value: Any = None) -> None:
        found.append((self.request.root_id, self.request.priority))

    result = chain(look.s(), look.s().set(priority=2), look.s()).set(priority=8).delay()
    shop.run()
    result.get(timeout=5)
    assert [priority for _, priority in found] == [8, 2, 8]
    assert {root for root, _ in found} == {graph_of_result(result)}


def test_awaiting(shop: Workshop) -> None:
    async def main() -> Any:
        result = await chain(shop.give.s(1), shop.add.s(1)).adelay()
        both = await group(shop.give.s(1), shop.give.s(2)).adelay()
        await asyncio.to_thread(shop.run)
        return await result.aget(timeout=5), await both.ajoin(timeout=5)

    assert asyncio.run(main()) == (2, [1, 2])


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_in_every_pool(pool: str) -> None:
    shop = Workshop("memory://")

    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    task = shop.app.task(name="later")(later)
    canvas = chain(task.s(1), group(task.s(), shop.add.s(1)), shop.total.s(), task.s())
    results = [canvas.delay() for _ in range(20)]
    assert Worker(shop.app, WorkerOptions(pool=pool, burst=True, loglevel="CRITICAL")).run() == 0
    assert [result.get(timeout=5) for result in results] == [7] * 20
