"""One call in the place of another: its id stays, and so does what follows it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, State, UnknownTask, chain, chord
from penstock.canvas import Signature
from tests.unit.canvas.workshop import Workshop


@pytest.fixture
def hand_over(shop: Workshop) -> Any:
    @shop.app.task(name="hand_over", bind=True, max_retries=0)
    def hand_over(self: Any, value: Any = None, to: str = "add") -> Any:
        shop.made.append(("hand_over", value, to))
        calls = {"add": shop.add.s(value, 100), "fail": shop.fail.s(value), "pack": shop.pack.s(value)}
        calls["nowhere"] = Signature("nowhere")
        calls["later"] = shop.add.s(1, 2).set(countdown=-1)
        raise self.replace(calls[to])

    return hand_over


def test_another_task_under_the_same_id(shop: Workshop, hand_over: Any) -> None:
    result = hand_over.delay(1)
    shop.run()
    assert result.get(timeout=5) == 101
    assert (result.report().task, result.retries) == ("add", 0)


def test_what_follows_stays(shop: Workshop, hand_over: Any) -> None:
    result = chain(shop.give.s(1), hand_over.s(), shop.add.s(1)).delay()
    both = chord([hand_over.s(1), shop.give.s(2)], shop.total.s()).delay()
    shop.run()
    assert (result.get(timeout=5), both.get(timeout=5)) == (102, 103)


def test_a_body_can_be_replaced(shop: Workshop, hand_over: Any) -> None:
    result = chord([shop.give.s(1), shop.give.s(2)], hand_over.s(to="pack")).delay()
    shop.run()
    assert result.get(timeout=5)[0] == [1, 2]


def test_a_replacement_that_fails_ends_what_follows(shop: Workshop, hand_over: Any) -> None:
    result = chain(hand_over.s(1, "fail"), shop.add.s(1)).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 1"):
        result.get(timeout=5)


@pytest.mark.parametrize(
    ("to", "error", "why"),
    [
        ("nowhere", UnknownTask, "no task 'nowhere' is registered"),
        ("later", ConfigError, "countdown"),
    ],
)
def test_a_replacement_that_cannot_be(shop: Workshop, hand_over: Any, to: str, error: Any, why: str) -> None:
    result = hand_over.delay(1, to)
    shop.run()
    assert result.state is State.FAILURE
    with pytest.raises(error, match=why):
        result.get(timeout=5)
    assert hand_over.apply((1, to)).failed()


def test_only_a_canvas_takes_the_place(shop: Workshop) -> None:
    with pytest.raises(TypeError, match=r"replace takes a signature, such as task\.s"):
        shop.add.replace([shop.add.s(1, 2)])  # type: ignore[arg-type]  # as users may


def test_eagerly(shop: Workshop, hand_over: Any) -> None:
    result = hand_over.apply((1,))
    assert (result.get(), result.name) == (101, "add")


def test_eagerly_without_end(shop: Workshop) -> None:
    def itself(self: Any) -> None:
        self.replace(endless.s())

    endless = shop.app.task(name="endless", bind=True)(itself)
    with pytest.raises(RuntimeError, match="needs an end"):
        endless.apply()
