"""What Celery's users write: links as options, copies, signatures as arguments, stamps of visitors, skewed groups."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import ConfigError, EncodeError, StampingVisitor, UnknownTask, chain, chord, group, maybe_signature
from penstock.canvas import Canvas, Signature
from penstock.canvas.nesting import DEEPEST
from tests.unit.canvas.workshop import Workshop


def test_links_are_options_of_a_call(shop: Workshop) -> None:
    shop.give.apply_async((1,), link=shop.add.s(1))
    shop.give.s(2).apply_async(link=[shop.add.s(1), shop.add.s(2)])
    shop.fail.apply_async((3,), link_error=shop.tell.s())
    chain(shop.give.s(4), shop.fail.s()).apply_async(link_error=[shop.tell.s()], link=shop.give.s())
    shop.give.signature((5,), link=shop.add.s(1)).delay()
    shop.run()
    assert sorted(one for one in shop.made if one[0] == "add") == [
        ("add", 1, 1),
        ("add", 2, 1),
        ("add", 2, 2),
        ("add", 5, 1),
    ]
    assert sorted(error["message"] for error in shop.errors) == ["no 3", "no 4"]


def test_links_of_an_awaited_call(shop: Workshop) -> None:
    asyncio.run(shop.give.aapply_async((1,), link=shop.add.s(1)))
    shop.run()
    assert shop.made == [("give", 1), ("add", 1, 1)]


def test_a_copy_with_more(shop: Workshop) -> None:
    call = shop.add.s(2).set(priority=3)
    copy = call.clone((1,), countdown=5)
    assert (copy.args, copy.options, call.args, call.options) == (
        (1, 2),
        {"priority": 3, "countdown": 5},
        (2,),
        {"priority": 3},
    )
    assert call.clone(kwargs={"y": 1}).kwargs == {"y": 1}
    linked = call.clone(link=shop.give.s())
    assert (len(linked.links), len(call.links)) == (1, 0)
    other = copy.replace(args=(7, 8), priority=1)
    assert (other.args, other.options, other.name) == ((7, 8), {"priority": 1, "countdown": 5}, "add")


def test_immutable_after_all(shop: Workshop) -> None:
    first, second = shop.add.s(1, 2).set(immutable=True), shop.add.s(3, 4)
    second.set_immutable(True)
    result = chain(shop.give.s(0), first, second).delay()
    shop.run()
    assert result.get(timeout=5) == 7


def test_a_signature_is_called_here(shop: Workshop) -> None:
    assert (shop.add.s(1)(2), shop.add.si(1, 2)(5), shop.add.s(1, 2).apply().get()) == (3, 3, 3)
    assert shop.add.s(1).type is shop.add
    with pytest.raises(UnknownTask, match="did you mean 'add'"):
        shop.app.signature("ad")(1)
    with pytest.raises(ConfigError, match="has links"):
        shop.add.s(1, 2).clone(link=shop.give.s()).apply()


def test_a_chord_is_called_with_or_without_its_body(shop: Workshop) -> None:
    results = [chord([shop.give.s(1)], shop.total.s())(), chord([shop.give.s(2)])(shop.total.s(), priority=3)]
    shop.run()
    assert [one.get(timeout=5) for one in results] == [1, 2]


def test_a_skewed_group(shop: Workshop) -> None:
    skewed = group(shop.give.s(n) for n in range(5)).skew(start=1, stop=2, step=0.5)
    assert [task.options["countdown"] for task in skewed.tasks] == [1, 1.5, 2, 1, 1.5]
    assert [task.options["countdown"] for task in group(shop.give.s(n) for n in range(3)).skew().tasks] == [1, 2, 3]


# -- as data


def every(shop: Workshop) -> list[Canvas[Any]]:
    full = shop.add.s(1, y=2).set(priority=3, link=shop.give.s(), link_error=shop.tell.s())
    return [
        full,
        shop.add.si(1, 2),
        chain(shop.add.s(1, 2), shop.add.s(3)).set(priority=2),
        group(shop.give.s(1), chain(shop.give.s(2), shop.give.s())),
        chord([shop.give.s(1)], shop.total.s()).on_error(shop.tell.s()),
        chord([shop.give.s(1)]),
        shop.add.chunks([(1, 2), (3, 4), (5, 6)], 2),
        group(),
    ]


def test_there_and_back(shop: Workshop) -> None:
    for canvas in every(shop):
        data = json.loads(json.dumps(dict(canvas)))
        again = maybe_signature(data, app=shop.app)
        assert dict(again) == dict(maybe_signature(again)) and json.loads(json.dumps(dict(again))) == {
            **data,
            "subtask_type": data["subtask_type"].replace("chunks", "group"),
        }
    assert maybe_signature(None) is None
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    assert dict(shop.add.s().set(eta=moment))["options"] == {"eta": moment.timestamp()}


def test_an_argument_of_a_task(shop: Workshop) -> None:
    @shop.app.task(name="plainly")
    def plainly(call: Any) -> str:
        assert isinstance(call, dict)
        return str(maybe_signature(call, app=shop.app).delay().id)

    @shop.app.task(name="typed")
    def typed(call: Signature[Any], others: list[Canvas[Any]]) -> int:
        maybe_signature(call, app=shop.app).delay()
        return len(others)

    for serializer in ("json", "msgpack"):
        plainly.apply_async((chain(shop.give.s(1), shop.give.s()),), serializer=serializer)
        result = typed.apply_async((shop.give.s(1), [group(shop.give.s(1))]), serializer=serializer)
        shop.run()
        assert result.get(timeout=5) == 1
    assert shop.count("give") == 6
    with pytest.raises(EncodeError, match="a chain is no Signature"):
        typed.delay(chain(shop.give.s(1)), [])
    with pytest.raises(EncodeError, match="not a canvas"):
        typed.delay({"subtask_type": "os"}, [])


def deep(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {"subtask_type": "group", "tasks": []}
    for _ in range(levels):
        data = {"subtask_type": "group", "tasks": [data]}
    return data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (5, "not a canvas"),
        ("os.system", "not a canvas"),
        ({"subtask_type": ["chain"]}, "not a canvas"),
        ({"subtask_type": "Signature", "task": "add"}, "has args, immutable, kwargs, task"),
        ({"subtask_type": "Signature", "task": "a\nb", "args": [], "kwargs": {}, "immutable": False}, "task"),
        ({"subtask_type": "Signature", "task": "a", "args": 5, "kwargs": {}, "immutable": False}, "of other types"),
        ({"subtask_type": "chain", "tasks": [], "app": 1}, "not app"),
        ({"subtask_type": "chain", "tasks": 5}, "of other types"),
        ({"subtask_type": "group", "tasks": [], "options": 5}, "options is a dict"),
        ({"subtask_type": "group", "tasks": [5]}, "not a canvas"),
        (deep(DEEPEST + 1), "at most 100 levels"),
        (deep(10_000), "at most 100 levels"),
        ({"subtask_type": "group", "tasks": [], "link": [deep(0)]}, "no one value to link to"),
        ({"subtask_type": "group", "tasks": [], "link_error": [deep(0)]}, "link_error takes a signature"),
        ({"subtask_type": "group", "tasks": [], "options": {1: 2}}, "names of options"),
        ({"subtask_type": "Signature", "task": "a", "args": [], "kwargs": {1: 2}, "immutable": False}, "and arguments"),
    ],
    ids=map(str, range(16)),
)
def test_data_that_is_no_canvas(data: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        maybe_signature(data)


# -- stamps


class Visitor(StampingVisitor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_signature(self, sig: Signature[Any], **headers: str) -> Mapping[str, str]:
        return {"order": f"{len(self.seen)}"}

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name != "on_signature":
            return lambda sig: self.seen.append(f"{name} {type(sig).__name__}")
        return super().__getattribute__(name)


def test_a_visitor_stamps_each_part(shop: Workshop) -> None:
    heads = shop.app.task(name="heads", bind=True)(lambda self, value=None: dict(self.request.headers))
    visitor = Visitor()
    canvas = chain(heads.s(), group(heads.s()), chord([heads.s()], heads.s(), link=heads.s(), link_error=heads.s()))
    result = canvas.stamp(visitor=visitor, all="1").delay()
    assert visitor.seen == [
        "on_chain_start chain",
        "on_group_start group",
        "on_group_end group",
        "on_chord_header_start chord",
        "on_group_start group",
        "on_group_end group",
        "on_chord_header_end chord",
        "on_chord_body chord",
        "on_callback Signature",
        "on_errback Signature",
        "on_chain_end chain",
    ]
    shop.run()
    assert result.get(timeout=5) == {"order": "8", "all": "1"}


def test_stamps_are_texts(shop: Workshop) -> None:
    class Bad(StampingVisitor):
        given: Any

        def on_signature(self, sig: Signature[Any], **headers: str) -> Any:
            return self.given

    visitor = Bad()
    for visitor.given in ({"order": 77}, None, ["x"]):
        with pytest.raises(ConfigError, match="returns a dict of strings"):
            shop.give.s().stamp(visitor=visitor)
