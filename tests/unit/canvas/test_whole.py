"""Canvases that are published all or none: in batches, and by one message that begins them."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, DecodeError, MessageTooLarge, Queue, QueueFull, State, chain, chord, group
from penstock.canvas.beginning import begun
from penstock.canvas.graph import BEGIN
from penstock.message import Message, Options, Place
from tests import keys
from tests.unit.canvas.workshop import Workshop

GRAPH = "0123456789abcdef" * 2


def depth(shop: Workshop) -> int:
    return shop.app.engine.run(shop.app.broker.depth("default")) or 0


def test_a_batch_takes_canvases(shop: Workshop) -> None:
    with shop.app.batch():
        single = shop.give.delay(0)
        line = chain(shop.give.s(1), shop.add.s(1)).delay()
        gathered = chord([shop.give.s(1), shop.give.s(2)], shop.total.s()).delay()
        beside = group(shop.give.s(3), shop.give.s(4)).delay()
        assert depth(shop) == 0
    assert (line.state, line.parent.state, gathered.parent.states()) == (State.PENDING,) * 2 + ([State.PENDING] * 2,)
    assert depth(shop) == 5  # two canvases are one message each
    shop.run()
    assert [one.get(timeout=5) for one in (single, line, gathered)] == [0, 2, 3]
    assert (beside.get(timeout=5), line.parent.get(timeout=5), gathered.parent.get(timeout=5)) == ([3, 4], 1, [1, 2])


def test_a_batch_that_fails_leaves_nothing(shop: Workshop) -> None:
    with pytest.raises(ZeroDivisionError), shop.app.batch():
        result = chain(shop.give.s(1), shop.add.s(1)).delay()
        raise ZeroDivisionError
    shop.run()
    assert (result.state, shop.made, depth(shop)) == (State.UNKNOWN, [], 0)


def test_a_batch_that_is_refused_leaves_nothing() -> None:
    shop = Workshop("memory://", task_queues=[Queue("default", max_length=1)])
    with pytest.raises(QueueFull), shop.app.batch():
        chain(shop.give.s(1), shop.add.s(1)).delay()
        shop.give.delay(1)
    assert shop.nothing_is_stored() and depth(shop) == 0


def test_bad_canvases_are_refused_in_the_block(shop: Workshop) -> None:
    with pytest.raises(TypeError, match="too many"), shop.app.batch():
        chain(shop.give.s(1), shop.add.s(1, 2)).delay()
    assert depth(shop) == 0


def test_what_is_too_large_for_one_message(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    big = "x" * (shop.app.engine.broker.features.max_message // 3)
    with pytest.raises(MessageTooLarge, match="in one message"), shop.app.batch():
        chord([shop.give.s(big) for _ in range(4)], shop.total.s()).delay()
    monkeypatch.setattr("penstock.canvas.beginning.WIDEST", 3)
    with pytest.raises(ConfigError, match="4 tasks at once, all or none"), shop.app.batch():
        chord([shop.give.s(1) for _ in range(4)], shop.total.s()).delay()
    assert depth(shop) == 0


def test_a_begun_canvas_can_fail_and_goes(shop: Workshop) -> None:
    with shop.app.batch():
        result = chain(shop.fail.s(1), shop.add.s(1)).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 1"):
        result.get(timeout=5)


def test_with_keys() -> None:
    shop = Workshop("memory://", security_key=keys.pem(keys.private()))
    with shop.app.batch():
        result = chord([shop.give.s(1), chain(shop.give.s(2), shop.add.s(1))], shop.total.s()).delay()
    shop.run()
    assert result.get(timeout=5) == 4
    assert shop.nothing_is_stored()


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x92\xc4\x00\x91\xc0", b"[" * 10_000])
def test_a_message_that_begins_nothing(body: bytes) -> None:
    place = Place(GRAPH, 0)
    with pytest.raises(DecodeError, match="not the beginning of a canvas"):
        begun(Message(1, BEGIN, body, options=Options(place=place)), place)


def test_a_forged_one_is_a_dead_letter(shop: Workshop) -> None:
    message = Message(1, BEGIN, b"x", "forged", options=Options(place=Place(GRAPH, 0)), sent=1.0)
    shop.app.engine.run(shop.app.broker.publish([message], 5.0))
    shop.run()
    assert shop.app.AsyncResult("forged").state is State.FAILURE


def test_a_link_of_a_call_in_a_batch(shop: Workshop) -> None:
    with shop.app.batch():
        result: Any = shop.give.apply_async((1,), link=shop.give.s())
    shop.run()
    assert (result.get(timeout=5), shop.made) == (1, [("give", 1), ("give", 1)])
