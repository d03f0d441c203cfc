"""Calls that go to several queues: who gets a copy, and what becomes of the answers."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock import Broadcast, ConfigError, Exchange, Penstock, Queue, QueueFull, UnknownQueue
from penstock.coordinator import WorkerInfo
from penstock.exchanges import takes
from penstock.message import Message, pack
from penstock.worker import WorkerOptions

NEWS, MEDIA, ALL = Exchange("news", "topic"), Exchange("media"), Exchange("all", "fanout")
QUEUES = [
    Queue("sport", exchange=NEWS, routing_key="*.sport.#"),
    Queue("italy", exchange=NEWS, routing_key="italy.#"),
    Queue("images", exchange=MEDIA, routing_key="image"),
    Queue("both-1", exchange=ALL),
    Queue("both-2", exchange=ALL, routing_key="ignored"),
    Broadcast("reload", expires=60),
]


@pytest.fixture
def shop() -> Iterator[Penstock]:
    app = Penstock("shop", broker="memory://", task_queues=QUEUES)
    app.task(name="f")(lambda: None)
    yield app
    app.close()


def depths(app: Penstock) -> dict[str, int | None]:
    return {info.name: info.depth for info in app.engine.run(app.engine.inspect.queues(None)) if info.depth}


def join(app: Penstock, name: str, id: str) -> None:
    queues = WorkerOptions(name=name).settle(app).queues
    app.engine.run(app.engine.coordinator.join(WorkerInfo(id * 32, name, "here", 1, 1, queues, "solo", 0.0)))


@pytest.mark.parametrize(
    ("binding", "key", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#", "", True),
        ("#.c", "a.b.c", True),
        ("#.b.#", "a.c", False),
        ("*.#", "a", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_what_fits_a_topic(binding: str, key: str, fits: bool) -> None:
    assert takes(NEWS, binding, key) is fits
    assert takes(ALL, binding, key)
    assert takes(MEDIA, binding, key) is (binding == key)


words = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6)


@given(words, st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6))
def test_a_topic_is_the_regular_expression_that_it_looks_like(pattern: list[str], key: list[str]) -> None:
    each = {"*": "(<[^<>]*>)", "#": "(<[^<>]*>)*"}
    expected = re.fullmatch("".join(each.get(one, f"<{one}>") for one in pattern), "".join(f"<{one}>" for one in key))
    assert takes(NEWS, ".".join(pattern), ".".join(key)) is bool(expected)


def test_many_hashes_take_no_time() -> None:
    assert not takes(NEWS, ".".join(["#", "a"] * 40), ".".join("a" * 39 + "b"))


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("news", "italy.sport.today", {"sport", "italy"}),
        ("news", "italy.weather", {"italy"}),
        ("media", "image", {"images"}),
        ("all", None, {"both-1", "both-2"}),
    ],
)
def test_each_queue_that_is_bound_gets_one(shop: Penstock, exchange: str, key: str | None, queues: set[str]) -> None:
    result = shop.tasks["f"].apply_async(exchange=exchange, routing_key=key)
    assert depths(shop) == dict.fromkeys(queues, 1)
    assert result.state == "PENDING"
    shop.send_task("unknown", exchange=exchange, routing_key=key)
    with shop.batch():
        shop.tasks["f"].apply_async(exchange=exchange, routing_key=key)
    shop.tasks["f"].delay_many([()])
    assert depths(shop) == {**dict.fromkeys(queues, 3), "default": 1}


def test_a_route_may_lead_to_an_exchange(shop: Penstock) -> None:
    shop.configure(task_routes={"f": {"exchange": "all"}, "g": "reload"})
    shop.tasks["f"].delay()
    assert depths(shop) == {"both-1": 1, "both-2": 1}
    shop.tasks["f"].apply_async(queue="elsewhere")
    assert depths(shop)["elsewhere"] == 1
    shop.close()
    shop.configure(task_routes={"f": {"queue": "q"}})
    assert shop.client.prepare(shop.tasks["f"], (), {}, {"exchange": "media", "routing_key": "image"}).queue == "images"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"exchange": "nwes"}, "no queue in task_queues is bound to an exchange 'nwes'; exchanges: news, media, all"),
        (
            {"exchange": "news", "routing_key": "x"},
            r"no queue takes routing_key='x' from the topic exchange 'news'",
        ),
        ({"exchange": "media"}, "no queue takes routing_key='' from the direct exchange 'media'; bound are 'image'"),
        ({"exchange": "news", "queue": "a"}, "give queue, or exchange and routing_key, not both"),
        ({"routing_key": "a"}, "routing_key='a' without an exchange goes nowhere"),
        ({"exchange": "all", "task_id": "a"}, r"'f' goes to several queues \(all:\): leave out task_id"),
        ({"exchange": "all", "unique": True}, r"'f' goes to several queues \(all:\): leave out unique"),
        ({"queue": "reload"}, "no worker that lives serves the broadcast 'reload': nothing was published"),
    ],
    ids=str,
)
def test_what_goes_nowhere_is_refused(shop: Penstock, options: Any, error: str) -> None:
    with pytest.raises((ConfigError, UnknownQueue), match=error):
        shop.tasks["f"].apply_async(**options)
    assert depths(shop) == {}


@pytest.mark.parametrize(
    ("queues", "error"),
    [
        ([Queue("a", exchange=Exchange("e")), Queue("b", exchange=Exchange("e", "topic"))], "'e' is of two types"),
        ([Broadcast("a"), "a"], "queue 'a' is declared twice"),
        ([{"name": "a", "exchange": "e"}], "exchange must be an Exchange, not 'e'"),
        ([{"name": "a", "exchange": {"name": "e", "type": "header"}}], "type must be 'direct', 'topic', 'fanout', not"),
    ],
    ids=str,
)
def test_bad_bindings_are_refused(queues: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Penstock("shop", broker="memory://", task_queues=queues)


def test_a_binding_needs_an_exchange_and_a_broadcast_an_end() -> None:
    with pytest.raises(ConfigError, match="routing_key='k' needs an exchange"):
        Queue("a", routing_key="k")
    as_in_kombu: Any = Exchange("e")
    with pytest.raises(ConfigError, match="an exchange is given by name, exchange=Exchange"):
        Queue("a", as_in_kombu, routing_key="k")
    with pytest.raises(ConfigError, match=r"must not contain '.to.' or '.in.'"):
        Broadcast("a.to.b")  # "a" would be published to its queues, too
    with pytest.raises(ConfigError, match="expires must be a number of seconds above 0"):
        Broadcast("a", expires=0)


def test_all_copies_are_published_or_none(shop: Penstock) -> None:
    shop.configure(task_queues=[Queue("one", exchange=ALL), Queue("two", max_length=1, exchange=ALL)])
    shop.tasks["f"].apply_async(exchange="all")
    with pytest.raises(QueueFull, match="queue 'two' is full"):
        shop.tasks["f"].apply_async(exchange="all")
    assert depths(shop) == {"one": 1, "two": 1}


def test_a_broadcast_goes_once_to_each_worker_that_lives(shop: Penstock) -> None:
    for name, id in (("one@here", "a"), ("two@here", "b"), ("two@here", "c")):  # two children of one
        join(shop, name, id)
    shop.engine.run(shop.engine.coordinator.leave("a" * 32))
    result = shop.tasks["f"].apply_async(queue="reload")
    assert depths(shop) == {"reload.to.two@here": 1}
    join(shop, "one@here", "a")
    shop.tasks["f"].apply_async(queue="reload")
    assert depths(shop) == {"reload.to.two@here": 2, "reload.to.one@here": 1}
    assert result.state == "PENDING"
    [peeked] = shop.engine.run(shop.engine.inspect.peek("reload.to.one@here"))
    assert peeked.message is not None and peeked.message.expires is not None
    assert 50 < peeked.message.expires - shop.clock.time() <= 60


def test_a_broadcast_is_of_one_namespace(shop: Penstock) -> None:
    join(shop, "ours@here", "a")
    shop.close()
    other = Penstock("other", broker="memory://", namespace="n", task_queues=QUEUES)
    join(other, "theirs@here", "b")
    other.send_task("x", queue="reload")
    assert depths(other) == {"reload.in.n.to.theirs@here": 1}
    other.close()


def test_a_broadcast_is_no_queue(shop: Penstock) -> None:
    with pytest.raises(UnknownQueue, match="'reload' is a broadcast, and has a queue for each worker"):
        shop.pause_queue("reload")
    assert WorkerOptions(queues=("reload", "sport"), name="w@h").settle(shop).queues == ("reload.to.w@h", "sport")
    task = shop.task(name="everywhere", queue="reload")(lambda: None)
    assert WorkerOptions(name="w@h").settle(shop).queues[-1] == "reload.to.w@h"
    join(shop, "w@h", "a")
    task.delay()
    assert depths(shop) == {"reload.to.w@h": 1}


def test_no_message_goes_out_with_several_queues_in_it(shop: Penstock) -> None:
    message: Message = shop.client.prepare(shop.tasks["f"], (), {}, {"exchange": "all"})
    with pytest.raises(TypeError, match="SeveralQueues"):
        pack(message)


def test_awaited(shop: Penstock) -> None:
    join(shop, "w@h", "a")

    async def calls() -> None:
        await shop.tasks["f"].aapply_async(queue="reload")
        await shop.tasks["f"].aapply_async(exchange="all")

    asyncio.run(calls())
    assert depths(shop) == {"reload.to.w@h": 1, "both-1": 1, "both-2": 1}
