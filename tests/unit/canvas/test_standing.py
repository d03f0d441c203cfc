"""A canvas in the place of a task, and members that join a running chord."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from penstock import (
    ConfigError,
    DecodeError,
    MessageTooLarge,
    SignatureError,
    State,
    TaskRevoked,
    UnknownTask,
    as_completed,
    chain,
    chord,
    group,
)
from penstock.canvas import Canvas
from penstock.coordinator import Revoked
from penstock.effects import Put
from penstock.message import Options, Place, graph_key
from penstock.outcome import Outcome
from penstock.replaced import MOVED, moved
from tests import keys
from tests.unit.canvas.workshop import Workshop

GRAPH = "0123456789abcdef" * 2
Make = Callable[[Workshop, int], Canvas[Any]]


class Spread:
    """A task `into` that is replaced by what `make` gives."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.make: Make = lambda shop, value: chain(shop.add.s(value, 1), shop.add.s(1))
        self.into = shop.app.task(name="into", bind=True, max_retries=0)(self._into)
        self.more = shop.app.task(name="more", bind=True, max_retries=1, default_retry_delay=0.0)(self._more)
        self.added: Make = lambda shop, value: shop.add.s(value, 100)
        self.failures = 0

    def _into(self, task: Any, value: int) -> Any:
        self.shop.made.append(("into", value))
        raise task.replace(self.make(self.shop, value))

    def _more(self, task: Any, value: int) -> int:
        task.add_to_chord(self.added(self.shop, value))
        if self.failures:
            self.failures -= 1
            raise task.retry()
        return value


@pytest.fixture
def spread(shop: Workshop) -> Spread:
    return Spread(shop)


def graphs_left(shop: Workshop) -> int:
    """Of the shared state; on the memory engine."""
    store = getattr(shop.app.engine, "_store", None)
    return len(store.values) if hasattr(store, "values") else 0


CANVASES: list[tuple[Make, Any]] = [
    (lambda shop, value: chain(shop.add.s(value, 1), shop.add.s(1)), 3),
    (lambda shop, value: group(shop.add.s(value, 1), shop.add.s(value, 2)), [2, 3]),
    (lambda shop, value: group(shop.add.s(value, 1), group(shop.give.s(5))), [2, [5]]),
    (lambda shop, value: chord([shop.add.s(value, 1), shop.add.s(value, 2)], shop.total.s()), 5),
    (lambda shop, value: group(), []),
    (lambda shop, value: shop.add.s(value, 1).set(queue="default"), 2),
    (lambda shop, value: shop.add.s(value, 1).set(link=shop.give.s()), 2),
    (lambda shop, value: chain(shop.give.s(value), group(shop.add.s(1), shop.add.s(2))), [2, 3]),
]


@pytest.mark.parametrize(("make", "value"), CANVASES, ids=map(str, range(len(CANVASES))))
def test_its_value_is_that_of_the_canvas(shop: Workshop, spread: Spread, make: Make, value: Any) -> None:
    spread.make = make
    alone = spread.into.delay(1)
    followed = chain(shop.give.s(1), spread.into.s(), shop.give.s()).delay()
    member = chord([spread.into.s(1), shop.give.s(7)], shop.give.s()).delay()
    shop.run()
    assert (alone.get(timeout=5), followed.get(timeout=5)) == (value, value)
    assert (member.get(timeout=5), followed.parent.get(timeout=5)) == ([value, 7], value)
    assert graphs_left(shop) == 0


def test_what_replaces_can_be_replaced(shop: Workshop, spread: Spread) -> None:
    spread.make = lambda shop, n: chain(shop.give.s(n + 1), spread.into.s() if n < 3 else shop.add.s(10))
    result = chain(spread.into.s(0), shop.add.s(100)).delay()
    shop.run()
    assert (result.get(timeout=5), result.parent.get(timeout=5)) == (114, 14)
    assert (shop.count("into"), graphs_left(shop)) == (4, 0)


def test_it_has_not_ended_before_the_canvas_has(shop: Workshop, spread: Spread) -> None:
    spread.make = lambda shop, value: chain(shop.give.s(value), shop.add.s(1).set(countdown=3600))
    result = spread.into.delay(1)
    shop.run()
    assert (result.state, result.ready(), shop.count("give")) == (State.PENDING, False, 1)
    assert group(spread.into.s(1)).delay().states() == [State.PENDING]


def test_the_failure_of_the_canvas_is_its_own(shop: Workshop, spread: Spread) -> None:
    spread.make = lambda shop, value: chain(shop.fail.s(value), shop.give.s())
    result = chain(spread.into.s(1).on_error(shop.tell.s()), shop.add.s(1)).delay()
    gathered = chord([spread.into.s(2), shop.give.s(1)], shop.total.s()).delay()
    shop.run()
    for one, why in ((result, "no 1"), (result.parent, "no 1"), (gathered, "no 2")):
        with pytest.raises(ValueError, match=why):
            one.get(timeout=5)
    [error] = shop.errors
    assert (error["task"], error["message"]) == ("into", "no 1")
    assert (shop.count("add"), shop.count("total"), graphs_left(shop)) == (0, 0, 0)


def test_the_error_call_of_the_whole_is_called_once(shop: Workshop, spread: Spread) -> None:
    spread.make = lambda shop, value: chain(shop.give.s(value), shop.fail.s(), shop.give.s())
    chain(shop.give.s(1), spread.into.s(), shop.add.s(1)).on_error(shop.tell.s()).delay()
    shop.run()
    assert [error["message"] for error in shop.errors] == ["no 1"]


def test_a_canvas_that_cannot_be_published_fails_the_task(shop: Workshop, spread: Spread) -> None:
    spread.make = lambda shop, value: chain(shop.give.s(value), shop.app.signature("nowhere"))
    result = chain(spread.into.s(1), shop.add.s(1)).delay()
    shop.run()
    with pytest.raises(UnknownTask, match="nowhere"):
        result.get(timeout=5)
    assert (shop.count("give"), graphs_left(shop)) == (0, 0)
    assert spread.into.apply((1,)).failed()


def test_a_canvas_that_is_too_large_fails_the_task(shop: Workshop, spread: Spread) -> None:
    big = "x" * (shop.app.engine.broker.features.max_message // 3)
    spread.make = lambda shop, value: group(shop.give.s(big) for _ in range(4))
    result = spread.into.delay(1)
    shop.run()
    with pytest.raises(MessageTooLarge, match="as it ends"):
        result.get(timeout=5)
    assert shop.count("give") == 0


def test_stamps_go_on(shop: Workshop, spread: Spread) -> None:
    heads = shop.app.task(name="heads", bind=True)(lambda self, value=None: dict(self.request.headers))
    spread.make = lambda shop, value: chain(shop.give.s(value), heads.s().stamp(own="1"))
    result = chain(spread.into.s(1), shop.give.s()).stamp(order="77").delay()
    shop.run()
    assert result.get(timeout=5) == {"order": "77", "own": "1"}


def test_who_waits_is_told_at_the_end(shop: Workshop, spread: Spread) -> None:
    results = [spread.into.delay(n) for n in range(3)]
    shop.run()
    assert sorted(one.get() for one in as_completed(results, timeout=5)) == [2, 3, 4]

    async def wait() -> list[int]:
        again = [shop.app.AsyncResult(one.id) for one in results]
        first = await again[0].aget(timeout=5)
        return [first, *[await one.aget() async for one in as_completed(again[1:], timeout=5)]]

    assert sorted(asyncio.run(wait())) == [2, 3, 4]


def test_who_waits_meanwhile_is_told_of_the_end_of_the_canvas(
    shop: Workshop, spread: Spread, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, subscribed, told = [spread.into.delay(n) for n in range(3)], threading.Event(), list[int]()
    backend = shop.app.backend
    subscribe = backend.subscribe

    def noted(*args: Any) -> Any:
        subscription = subscribe(*args)
        subscribed.set()
        return subscription

    monkeypatch.setattr(backend, "subscribe", noted)
    waiting = threading.Thread(target=lambda: told.extend(one.get() for one in as_completed(results, timeout=10)))
    waiting.start()
    assert subscribed.wait(5)
    shop.run()
    waiting.join(10)
    assert sorted(told) == [2, 3, 4]


@pytest.mark.parametrize(("first", "last"), [(None, 3600), (3600, None)], ids=["published", "not published"])
def test_it_can_be_revoked_as_long_as_the_canvas_runs(
    shop: Workshop, spread: Spread, first: int | None, last: int | None
) -> None:
    spread.make = lambda shop, value: chain(shop.give.s(value).set(countdown=first), shop.add.s(1).set(countdown=last))
    result = chain(spread.into.s(1), shop.add.s(1)).delay()
    shop.run()
    assert result.parent.revoke() in (Revoked.REMOVED, Revoked.REMEMBERED)
    shop.run()
    for one in (result, result.parent):
        with pytest.raises(TaskRevoked):
            one.get(timeout=5)
    assert shop.count("add") == 0
    assert graphs_left(shop) <= 1  # that of the replacement goes a day later


def test_a_member_that_joins_later(shop: Workshop, spread: Spread) -> None:
    for give in (shop.give, shop.pack):
        result = chord([shop.give.s(1), spread.more.s(2), shop.give.s("![x]"), spread.more.s(3)], give.s()).delay()
        shop.run()
        value = result.get(timeout=5)
        assert (value if give is shop.give else value[0]) == [1, 2, 102, "![x]", 3, 103]
        assert result.parent.join(timeout=5) == [1, 2, "![x]", 3]
        assert graphs_left(shop) == 0


def test_several_join_and_let_others_join(shop: Workshop, spread: Spread) -> None:
    spread.added = lambda shop, value: spread.more.s(value + 1) if value < 3 else shop.give.s([value])
    result = chord([spread.more.s(1), shop.give.s(0)], shop.give.s()).delay()
    shop.run()
    assert result.get(timeout=5) == [1, 2, 3, [3], 0]
    assert graphs_left(shop) == 0


def test_a_retry_adds_once(shop: Workshop, spread: Spread) -> None:
    spread.failures = 1
    result = chord([spread.more.s(1), shop.give.s(0)], shop.give.s()).delay()
    shop.run()
    assert result.get(timeout=5) == [1, 101, 0]
    assert shop.count("add") == 1


def test_one_that_joined_and_failed_fails_the_body(shop: Workshop, spread: Spread) -> None:
    spread.added = lambda shop, value: shop.fail.s(value)
    result = chord([spread.more.s(1), shop.give.s(0)], shop.total.s()).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 1"):
        result.get(timeout=5)
    assert result.parent[0].get(timeout=5) == 1
    assert (shop.count("total"), graphs_left(shop)) == (0, 0)


def test_only_a_chord_can_be_joined(shop: Workshop, spread: Spread) -> None:
    results = [
        spread.more.delay(1),
        chain(spread.more.s(1), shop.give.s()).delay(),
        group(spread.more.s(1)).delay()[0],
    ]
    shop.run()
    for one in results:
        with pytest.raises(ConfigError, match="no member of a chord's header"):
            one.get(timeout=5)


@pytest.mark.parametrize("packed", [{}, {"result_compression": "zlib", "compression_min_bytes": 1}], ids=str)
def test_with_keys(packed: dict[str, Any]) -> None:
    signed = Workshop("memory://", security_key=keys.pem(keys.private()), **packed)
    spread = Spread(signed)
    alone = spread.into.delay(1)
    both = chord([spread.into.s(1), spread.more.s(5)], signed.give.s()).delay()
    signed.run()
    assert (alone.get(timeout=5), both.get(timeout=5)) == (3, [3, 5, 105])
    signed.app.close()


def test_a_reference_that_is_forged_is_not_followed() -> None:
    signed = Workshop("memory://", security_key=keys.pem(keys.private()))
    there = chain(signed.give.s(1), signed.give.s()).delay()
    forged = signed.app.AsyncResult("forged")
    signed.app.results.run(signed.app.backend.store([("forged", moved(there.id, 1.0))]))
    signed.run()
    with pytest.raises(SignatureError, match="not signed"):
        forged.get(timeout=5)
    signed.app.close()


@pytest.mark.parametrize("value", [b"", b"5", b'"x"'], ids=str)
def test_a_reference_to_nowhere(shop: Workshop, value: bytes) -> None:
    shop.app.results.run(shop.app.backend.store([("odd", Outcome(State.SUCCESS, value, 1.0, content_type=MOVED))]))
    with pytest.raises(DecodeError, match="is said to be"):
        shop.app.AsyncResult("odd").get(timeout=5)


def test_references_in_a_circle(shop: Workshop) -> None:
    itself = f"{'0123456789abcdef' * 2}.1"
    shop.app.results.run(shop.app.backend.store([(itself, moved(itself, 1.0))]))
    with pytest.raises(DecodeError, match="leads nowhere"):
        shop.app.AsyncResult(itself).get(timeout=5)


def test_ignored_results_are_no_references(shop: Workshop, spread: Spread) -> None:
    result = spread.into.apply_async((1,), ignore_result=True)
    shop.run()
    assert shop.app.AsyncResult(result.id).report().outcome is None
    assert shop.count("add") == 2


def test_the_graph_of_one_that_runs_again_is_the_same(shop: Workshop, spread: Spread) -> None:
    from penstock.canvas.standing import instead

    message = shop.app.client.prepare(spread.into, (1,), {})
    first, effects = instead(shop.app, spread.make(shop, 1), message, "id")
    again, _ = instead(shop.app, spread.make(shop, 1), message, "id")
    message.sent += 1.0
    other, _ = instead(shop.app, spread.make(shop, 1), message, "id")
    assert first == again != other
    [put] = [effect for effect in effects if isinstance(effect, Put)]
    assert (put.key, put.if_version) == (graph_key(first.partition(".")[0]), 0)
    message.options = Options(place=Place(GRAPH, 1))  # it is published again with the same id only by its own graph
    part, _ = instead(shop.app, spread.make(shop, 1), message, "id")
    message.sent += 1.0
    assert instead(shop.app, spread.make(shop, 1), message, "id")[0] == part
