"""What cannot be run to its end is refused before anything is published, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from penstock import (
    Broadcast,
    ConfigError,
    EncodeError,
    MessageTooLarge,
    Queue,
    UnknownQueue,
    UnknownTask,
    Unsupported,
    chain,
    chord,
    group,
)
from penstock.broker import Features
from penstock.canvas import Canvas, Signature, StampingVisitor
from penstock.canvas import graph as graphs
from penstock.canvas.drawing import mermaid
from tests.unit.canvas.workshop import Workshop
from tests.unit.fake_engine import fake_app


@pytest.fixture
def shop() -> Workshop:
    return Workshop("memory://")


def refused(shop: Workshop, canvas: Canvas[Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        shop.app.send(canvas)
    assert shop.nothing_is_stored()
    assert shop.app.engine.run(shop.app.broker.depth("default")) == 0


def test_an_unknown_task_in_the_middle(shop: Workshop) -> None:
    middle = chain(shop.give.s(1), shop.app.signature("ad"), shop.add.s(1))
    refused(shop, middle, UnknownTask, "no task 'ad' is registered in this app; did you mean 'add'")
    refused(shop, chord([shop.app.signature("far")], shop.give.s()), UnknownTask, "no task 'far'")


def test_a_single_task_and_a_plain_group_may_be_unknown(shop: Workshop) -> None:
    shop.app.signature("far", (1,)).delay()
    group(shop.app.signature("far", (1,)), shop.give.s(1)).delay()
    assert shop.app.engine.run(shop.app.broker.depth("default")) == 3


def test_what_contains_itself(shop: Workshop) -> None:
    loop = shop.add.s(1, 2)
    loop.link(loop)
    refused(shop, loop, ConfigError, "Signature contains itself")
    inner = group(shop.add.s(1, 2), shop.add.s(1, 2))
    inner.tasks = (*inner.tasks, chain(shop.give.s(1), inner))
    refused(shop, inner, ConfigError, "group contains itself")


def test_the_same_part_twice_is_no_loop(shop: Workshop) -> None:
    one = shop.add.s(1)
    result = chain(shop.give.s(1), one, one, group(one, one)).delay()
    shop.run()
    assert result.get(timeout=5) == [4, 4]


def test_what_is_nested_too_deeply(shop: Workshop) -> None:
    deep: Canvas[Any] = shop.give.s(1)
    for _ in range(101):
        deep = group(deep)
    refused(shop, chord([deep], shop.give.s()), ConfigError, "nested 103 levels deep, and it may be 100: .* one chain")


NESTS: dict[str, Callable[[Workshop, Canvas[Any]], Canvas[Any]]] = {
    "group": lambda shop, inner: group(inner, shop.give.s(1)),
    "chord": lambda shop, inner: chord([inner, shop.give.s(1)], shop.give.s()),
    "body": lambda shop, inner: chord([shop.give.s(1)], inner),
    "chain": lambda shop, inner: chain(shop.give.s(1), inner).set(queue="other"),
    "link": lambda shop, inner: shop.give.s(1).set(link=inner),
}
USES: dict[str, Callable[[Canvas[Any]], object]] = {
    "delay": lambda canvas: canvas.delay(),
    "with arguments": lambda canvas: canvas.delay(1),
    "clone": lambda canvas: canvas.clone((1,)),
    "as plain data": lambda canvas: canvas.to_plain(),
    "stamped": lambda canvas: canvas.stamp(visitor=StampingVisitor()),
    "drawn": mermaid,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("shape", NESTS)
def test_thousands_of_levels_are_refused_by_whoever_goes_through_them(shop: Workshop, shape: str, use: str) -> None:
    deep: Canvas[Any] = shop.give.s(1)
    for _ in range(3_000):
        deep = NESTS[shape](shop, deep)
    assert len(repr(deep)) < 2_000
    with pytest.raises(ConfigError, match=r"is nested [36],00\d levels deep, and it may be 100: .* is one chain"):
        USES[use](deep)


@pytest.mark.parametrize("use", USES)
def test_more_tasks_than_a_queue_takes_are_refused_at_once(shop: Workshop, use: str) -> None:
    many = group(shop.give.s(1), shop.give.s(2))
    for _ in range(22):
        many = group(many, many)
    assert len(repr(many)) < 2_000
    begun = time.thread_time()
    with pytest.raises(ConfigError, match="has 8,388,608 tasks, and it may have 1,000,000: use chunks, or delay_many"):
        USES[use](many)
    assert time.thread_time() - begun < 1, "nobody makes them first"


def test_a_hundred_levels_are_not_too_many(shop: Workshop) -> None:
    deep: Canvas[Any] = shop.give.s(1)
    for _ in range(100):
        deep = group(deep)
    value: Any = 1
    for _ in range(100):
        value = [value]
    result = deep.delay()
    shop.run()
    assert result.get(timeout=5) == value


def test_a_chain_of_thousands_is_flat(shop: Workshop) -> None:
    long: Canvas[Any] = shop.give.s(0)
    for _ in range(2_000):
        long = long | shop.add.s(1)
    assert len(long) == 2_001  # type: ignore[arg-type]  # a chain
    result = long.delay()
    shop.run()
    assert result.get(timeout=5) == 2_000


def test_arguments_are_bound_with_the_value_before_them(shop: Workshop) -> None:
    refused(shop, shop.give.s(1) | shop.add.s(1, 2), TypeError, "add, called with the value before it: too many")
    refused(shop, shop.give.s(1) | shop.add.s(), TypeError, "missing a required argument: 'y'")
    refused(shop, shop.give.s(1) | shop.add.s("x"), EncodeError, "argument 'y' does not fit its annotation")
    refused(shop, shop.give.s(1) | shop.total.s(start="x"), EncodeError, "argument 'start'")
    refused(shop, shop.give.s(1) | shop.total.s(begin=1), TypeError, "unexpected keyword argument 'begin'")


def test_what_cannot_be_serialized(shop: Workshop) -> None:
    refused(shop, shop.give.s(1) | shop.pack.s(object()), EncodeError, "pack: ")
    refused(shop, shop.give.s(object()) | shop.pack.s(), EncodeError, "give: argument 'value'")


def test_ids_of_ones_own(shop: Workshop) -> None:
    refused(shop, chain(shop.give.s(1).set(task_id="mine"), shop.give.s()), ConfigError, "leave out task_id")


def test_tasks_that_may_not_run(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    single = shop.app.task(name="single", unique=True)(lambda value=None: value)
    early = shop.app.task(name="early", acks_late=False)(lambda value=None: value)
    refused(shop, chain(single.s(1), shop.give.s()), ConfigError, "task 'single' is unique")
    refused(shop, chain(shop.give.s(1).set(unique=True), shop.give.s()), ConfigError, "unique")
    monkeypatch.setattr(Features, "notes_starts", False)
    refused(shop, chain(shop.give.s(1), early.s()), ConfigError, "acknowledged before it runs on the memory engine")


def test_bad_options(shop: Workshop) -> None:
    refused(shop, chain(shop.give.s(1), shop.give.s().set(countdown=-1)), ConfigError, "countdown")
    refused(shop, chain(shop.give.s(1), shop.give.s().set(expires=0)), ConfigError, "expires")
    refused(shop, chain(shop.give.s(1), shop.give.s().set(que="x")), ConfigError, "unknown call option 'que'")  # type: ignore[call-arg]
    shop = Workshop("memory://", task_queues=[Queue("default")], task_create_missing_queues=False)
    refused(shop, chain(shop.give.s(1), shop.give.s().set(queue="nowhere")), UnknownQueue, "nowhere")


def test_too_many_after_one(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.canvas.compile.WIDEST", 3)
    wide = group(shop.give.s() for _ in range(4))
    refused(shop, chain(shop.give.s(1), wide), ConfigError, "4 tasks follow one task, and 3 may")
    chord(group(shop.give.s(1) for _ in range(4)), shop.give.s()).delay()


def test_a_graph_that_is_too_large(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_BYTES", 1_000)
    refused(shop, chain(shop.give.s(1), shop.pack.si("x" * 1_000)), MessageTooLarge, "besides its first tasks")


def test_what_is_no_canvas(shop: Workshop) -> None:
    with pytest.raises(TypeError, match="chain: part 2 is int"):
        chain(shop.give.s(1), 2)  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match="link takes a signature"):
        shop.give.s(1).link(5)  # type: ignore[type-var]  # refused
    with pytest.raises(TypeError, match="link_error takes a signature"):
        shop.give.s(1).link_error(chain(shop.give.s(1)))  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match=r"use group\(…\) | call"):
        group(shop.give.s(1)).link(shop.give.s())
    with pytest.raises(TypeError, match="unsupported operand"):
        shop.give.s(1) | 3  # type: ignore[operator]  # refused
    refused(shop, chain(), ConfigError, "at least one task")
    refused(shop, chord([shop.give.s(1)]), ConfigError, "has no body")
    with_links = shop.give.s().on_error(shop.tell.s())
    refused(shop, shop.give.s(1).on_error(with_links), ConfigError, "nothing can follow it")


def test_a_signature_without_an_app() -> None:
    with pytest.raises(ConfigError, match="belongs to no app"):
        Signature("add", (1, 2)).delay()


def test_map_takes_plain_functions(shop: Workshop) -> None:
    async def wait(value: int) -> None: ...

    task = shop.app.task(name="wait")(wait)
    with pytest.raises(ConfigError, match="wait is a coroutine"):
        task.map([1])
    with pytest.raises(EncodeError, match="argument 'x'"):
        shop.add.starmap([(1, 2), ("x", 2)])
    with pytest.raises(ConfigError, match="at least 1 call"):
        shop.add.chunks([(1, 2)], 0)
    limited = shop.app.task(name="limited", rate_limit=1)(lambda x: x)
    with pytest.raises(ConfigError, match="limited has a limit, and map, starmap and chunks call its function past it"):
        limited.map([1])


def test_an_engine_that_gathers_nothing() -> None:
    app, _ = fake_app()
    give = app.task(name="give")(lambda value=None: value)
    with pytest.raises(Unsupported, match="the fake engine cannot gather values"):
        chord([give.s(1)], give.s()).delay()


def test_links_that_nobody_would_follow(shop: Workshop) -> None:
    linked = shop.add.s(1, 2)
    linked.link(shop.add.s(3))
    for publish in (
        lambda: shop.add.delay_many([(1, 2), linked]),
        lambda: shop.app.add_periodic_task(60, linked),
        lambda: shop.app.timetable.add("each", 60, linked),
    ):
        with pytest.raises(ConfigError, match="has links, which only a canvas follows"):
            publish()
    assert shop.app.engine.run(shop.app.broker.depth("default")) == 0


def test_a_part_that_goes_to_several_queues() -> None:
    shop = Workshop("memory://", task_queues=[Queue("default"), Broadcast("all")])
    refused(shop, chain(shop.give.s(1), shop.give.s().set(queue="all")), ConfigError, "goes to several queues")
    refused(shop, chain(shop.give.s(1).set(queue="all"), shop.give.s()), ConfigError, "is one task")
