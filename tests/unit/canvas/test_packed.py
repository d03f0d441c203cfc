"""Canvases of an app that compresses, signs, or writes other than as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, MessageTooLarge, Penstock, SignatureError, State, TaskRevoked, chain, chord, group
from penstock.broker import Accepted
from penstock.canvas.results import GroupResult
from penstock.message import Options, Place, graph_key, graph_of
from tests import keys
from tests.unit.canvas.workshop import Workshop

TEXT = "all work and no play " * 40
KEY = keys.pem(keys.private())
PACKED: dict[str, Any] = {"task_compression": "zlib", "result_compression": "gzip", "compression_min_bytes": 10}


@pytest.fixture
def opened() -> Iterator[list[Workshop]]:
    shops: list[Workshop] = []
    yield shops
    for shop in shops:
        shop.app.close()


def make(opened: list[Workshop], broker: str = "memory://", **settings: Any) -> Workshop:
    shop = Workshop(broker, **settings)
    opened.append(shop)
    return shop


def sqlite(folder: Path) -> dict[str, Any]:
    return {"broker": f"sqlite:///{folder / 'queue.db'}", "durability": "process"}


@pytest.fixture(
    params=["packed", "packed msgpack", "yaml results", "msgpack only", "signed", "signed msgpack", "signed and packed"]
)
def shop(request: pytest.FixtureRequest, opened: list[Workshop]) -> Workshop:
    settings: dict[str, dict[str, Any]] = {
        "packed": PACKED,
        "packed msgpack": {**PACKED, "task_serializer": "msgpack"},
        "yaml results": {"accept_content": ["json", "msgpack", "yaml"], "result_serializer": "yaml"},
        "msgpack only": {"accept_content": ["msgpack"], "task_serializer": "msgpack"},
        "signed": {"security_key": KEY},
        "signed msgpack": {"security_key": KEY, "task_serializer": "msgpack"},
        "signed and packed": {"security_key": KEY, **PACKED},
    }
    return make(opened, **settings[request.param])


def test_values_go_from_task_to_task(shop: Workshop) -> None:
    give, pack = shop.give, shop.pack
    linked = chain(give.s(TEXT), pack.s(), give.s()).delay()
    gathered = chord([give.s(TEXT), pack.s(TEXT, b""), chain(give.s(1), give.s())], give.s()).delay()
    lists = (group(give.s(TEXT), group(give.s(2), give.s(3))) | group(give.s(), pack.s(b""))).delay()
    nothing = chord([], give.si(TEXT)).delay()
    rows = chain(give.s(TEXT), give.map([TEXT, 2])).delay()
    links = give.s(TEXT)
    links.link(give.s())
    links.link(shop.total.si([1]))
    links.delay()
    shop.run()
    assert linked.get(0)[0] == TEXT
    assert gathered.get(0)[0] == TEXT
    assert gathered.get(0)[2] == 1
    assert lists.get(0)[0] == [TEXT, [2, 3]]
    assert (nothing.get(0), rows.get(0)) == (TEXT, [TEXT, 2])
    assert shop.count("total") == 1
    assert shop.nothing_is_stored()


def test_failures_go_from_task_to_task(shop: Workshop) -> None:
    broken = chord([shop.give.s(TEXT), shop.fail.s(1)], shop.give.s()).on_error(shop.tell.s())
    result = chain(broken, shop.give.s()).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 1"):
        result.get(0)
    assert [error["message"] for error in shop.errors] == ["no 1"]
    assert shop.nothing_is_stored()


def test_a_part_is_retried_and_replaced(shop: Workshop) -> None:
    def instead(self: Any, value: Any) -> None:
        self.replace(shop.give.s([value, TEXT]))

    replaced = shop.app.task(name="instead", bind=True)(instead)
    result = (chord([shop.give.s(1), replaced.s(2)], shop.again.s()) | replaced.s() | shop.give.s()).delay()
    shop.run()
    assert result.get(0) == [[1, [2, TEXT]], TEXT]
    assert shop.count("again") == 3


def test_what_follows_is_written_as_json_or_msgpack(opened: list[Workshop]) -> None:
    shop = make(opened, accept_content=["json", "msgpack", "yaml"], task_serializer="yaml")
    for call in (shop.give.s(), shop.give.si(1)):
        with pytest.raises(ConfigError, match=r"give\(.*\) follows something, and would be written as yaml: .*json"):
            chain(shop.give.s(1), call).delay()
    result = chain(shop.give.s(TEXT), shop.give.s().set(serializer="json")).delay()
    shop.run()
    assert result.get(0) == TEXT


def test_lists_of_values_need_json_or_msgpack() -> None:
    app = Penstock("unit", broker="memory://", accept_content=["yaml"], task_serializer="yaml")
    give = app.task(name="give")(lambda value: value)
    with pytest.raises(ConfigError, match="let accept_content have one of them"):
        chord([give.s(1)], group()).delay()


# -- signed


@pytest.fixture(params=["memory", "sqlite"])
def signed(request: pytest.FixtureRequest, opened: list[Workshop], tmp_path: Path) -> Workshop:
    where = {"broker": "memory://"} if request.param == "memory" else sqlite(tmp_path)
    return make(opened, **where, security_key=KEY)


def stored(shop: Workshop, graph: str) -> bytes:
    engine = shop.app.engine
    found = engine.run(engine.coordinator.get(graph_key(graph)))
    assert found is not None
    return found[0]


def store(shop: Workshop, graph: str, data: bytes) -> None:
    engine = shop.app.engine
    engine.run(engine.coordinator.put(graph_key(graph), data))


def test_a_part_that_waits_is_revoked_by_a_signed_message(signed: Workshop) -> None:
    later, first = signed.give.s(), signed.give.s(1)
    result = chain(first, later, signed.give.s()).delay()
    result.parent.revoke()
    signed.run()
    assert result.parent.parent.get(0) == 1
    with pytest.raises(TaskRevoked):
        result.get(0)


def test_a_changed_graph_is_not_followed(signed: Workshop) -> None:
    result, other = (chain(signed.give.s(1), signed.give.si(text)).delay() for text in ("good", "evil"))
    graph, evil = (graph_of(one.id) for one in (result, other))
    assert graph is not None
    assert evil is not None
    data = stored(signed, graph[0])
    assert data.count(b"good") == 1
    store(signed, graph[0], data.replace(b"good", b"evil"))
    store(signed, evil[0], data)  # a true one, of another canvas
    signed.run()
    assert result.parent.get(0) == other.parent.get(0) == 1
    assert (result.state, other.state) == (State.PENDING, State.PENDING)
    assert signed.made == [("give", 1), ("give", 1)]


def test_a_graph_without_a_signature_is_believed_where_that_is_said(opened: list[Workshop], tmp_path: Path) -> None:
    where = sqlite(tmp_path)
    plain, strict = make(opened, **where), make(opened, **where, security_key=KEY)
    lenient = make(opened, **where, security_key=KEY, security_accept_unsigned=True)
    result = chain(plain.give.s(1), plain.give.s()).delay()
    group_result = group(plain.give.s(1)).delay()
    group_result.save()
    lenient.run()
    assert lenient.count("give") == 3
    assert lenient.app.AsyncResult(result.id).get(0) == 1
    assert len(GroupResult.restore(group_result.id, app=lenient.app)) == 1
    with pytest.raises(SignatureError):
        GroupResult.restore(group_result.id, app=strict.app)


def test_a_saved_group_is_believed_if_it_is_signed(opened: list[Workshop], tmp_path: Path) -> None:
    where = sqlite(tmp_path)
    signing, plain = make(opened, **where, security_key=KEY), make(opened, **where)
    result = group(signing.give.s(1), signing.give.s(2)).delay()
    result.save()
    assert GroupResult.restore(result.id, app=signing.app) == result
    assert len(GroupResult.restore(result.id, app=plain.app)) == 2
    engine = signing.app.engine
    found = engine.run(engine.coordinator.get(f"group/{result.id}"))
    assert found is not None
    engine.run(engine.coordinator.put("group/other", found[0]))
    with pytest.raises(SignatureError, match="the group other"):
        GroupResult.restore("other", app=signing.app)


def test_a_stranger_cannot_end_a_part(signed: Workshop) -> None:
    result = chain(signed.give.s(1), signed.give.s()).delay()
    found = graph_of(result.id)
    assert found is not None
    forged = signed.app.client.prepare(signed.give, (1,), {}, {"task_id": "forged"})
    forged.options = Options(place=Place(found[0], 0))
    (answer,) = signed.app.engine.run(signed.app.broker.publish([forged], 5.0))
    assert isinstance(answer, Accepted)
    signed.run()
    assert result.get(0) == 1
    assert isinstance(signed.app.AsyncResult("forged").get(0, propagate=False), SignatureError)
    assert signed.count("give") == 2


def test_values_that_are_too_much_fail_what_gathers_them(opened: list[Workshop]) -> None:
    shop = make(opened, security_key=KEY)
    result = chord([shop.grow.s(2) for _ in range(4)], shop.give.s()).delay()
    shop.run()
    with pytest.raises(MessageTooLarge, match="gathered for it take more than"):
        result.get(0)
