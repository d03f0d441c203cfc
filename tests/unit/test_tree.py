"""What is before a result, and what follows it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock import DecodeError, GroupResult, Penstock, ResultSet, chain, chord, group, result_from_tuple
from penstock.canvas.results import GroupResult as Groups
from penstock.errors import ConfigError
from tests.unit.canvas.workshop import Workshop


@pytest.fixture
def shop() -> Workshop:
    return Workshop("memory://")


def test_what_follows(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1), group(shop.add.s(1), shop.add.s(2)), shop.total.s()).delay()
    shop.run()
    root = result.root
    assert root.get() == 1
    assert [node.get() for _, node in root.iterdeps()] == [1, 2, 3, 4, 7]
    assert [value for _, value in root.collect(timeout=5)] == [1, 2, 3, 4, 7]
    assert (root.get_leaf(timeout=5), result.get_leaf(timeout=5)) == (7, 7)
    assert [(one.get(), [after.get() for after in all_after]) for one, all_after in root.graph.items()] == [
        (1, [2]),
        (2, [3, 4]),
        (3, [7]),
        (4, [7]),
        (7, []),
    ]
    assert root.children[0].parent == root


def test_links_are_children(shop: Workshop) -> None:
    result = shop.give.apply_async((1,), link=[shop.add.s(1), shop.add.s(2)])
    shop.run()
    assert [one.get() for one in result.children] == [2, 3]
    assert shop.give.delay(1).children == []


def test_as_a_tuple_and_back(shop: Workshop) -> None:
    line = chain(shop.give.s(1), group(shop.add.s(1), shop.add.s(2)), shop.total.s()).delay()
    header = chord([shop.give.s(1), shop.give.s(2)], shop.total.s()).delay()
    shop.run()
    for result in (line, header, line.parent, header.parent, shop.app.AsyncResult("x")):
        again = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app=shop.app)
        assert again == result and again.as_tuple() == result.as_tuple()
    again = result_from_tuple(line.as_tuple(), app=shop.app)
    assert (again.get(timeout=5), again.parent.get(timeout=5), again.root.get(timeout=5)) == (5, [2, 3], 1)
    assert [one._place for one in result_from_tuple(header.parent.as_tuple(), app=shop.app)] == [
        one._place for one in header.parent
    ]
    assert line.as_list() == [line.id, line.parent.id, line.root.id]


def test_a_long_line_needs_no_deep_stack(shop: Workshop) -> None:
    result = chain(shop.give.s(0), *(shop.add.s(1) for _ in range(2_000))).delay()
    assert len(result_from_tuple(result.as_tuple(), app=shop.app).as_list()) == 2_001


def endless(depth: int) -> Any:
    data: Any = (("x", None), None)
    for _ in range(depth):
        data = (("x", None), [data])
    return data


@pytest.mark.parametrize(
    "data", [5, [], ["x"], [["x"], None], [["x", 5], None], [["x", None], 5], [["x", None, ["g", "n"]], None]], ids=str
)
def test_what_is_no_result(shop: Workshop, data: Any) -> None:
    with pytest.raises(DecodeError, match="is no result as a tuple"):
        result_from_tuple(data, app=shop.app)


def test_hostile_tuples(shop: Workshop) -> None:
    with pytest.raises(ConfigError, match="task id"):
        result_from_tuple([["a\nb", None], None], app=shop.app)
    with pytest.raises(DecodeError, match="without end"):
        result_from_tuple(endless(10_000), app=shop.app)


def test_a_set_knows_its_app_by_its_results(shop: Workshop) -> None:
    one, two = shop.give.delay(1), shop.give.delay(2)
    results = ResultSet([one])
    results.update([two, one])
    shop.run()
    assert results.join(timeout=5) == [1, 2]
    results.discard(one)
    results.discard(one)
    assert results.results == [two]
    with pytest.raises(ConfigError, match="no results, and so no app"):
        ResultSet()._app  # noqa: B018
    app: Penstock = GroupResult([one])._app
    assert app is shop.app and GroupResult is Groups
