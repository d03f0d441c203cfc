"""Publishing: sizes, chunks, and queues that are full."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import Penstock, Queue, QueueFull, State, chain, chord, group
from penstock.canvas.compile import Compiler
from penstock.canvas.follow import ended, fate_of, succeeded
from penstock.canvas.messages import Messages
from penstock.codec import failure
from penstock.effects import Publish
from penstock.message import Message, Options, Place, graph_key, pack
from penstock.worker.settings import WorkerOptions
from penstock.worker.worker import Worker
from tests.unit.canvas.workshop import Workshop

GRAPH = "0123456789abcdef" * 2


def compiled(shop: Workshop, canvas: Any) -> Any:
    return Compiler().compile(canvas, GRAPH, Messages(shop.app))


def test_canvas_messages_do_not_blow_up() -> None:
    shop = Workshop("memory://")
    canvas = chain(shop.add.s(0, 1), *(shop.add.s(1) for _ in range(999)))
    graph = compiled(shop, canvas).graph
    error = failure(ValueError("x" * 100_000))
    largest = 0
    for node in range(999):
        [after] = succeeded(graph, node, b"1", "json", lambda: "a" * 32, 1e9, 1 << 20)
        doomed: Any = fate_of(State.FAILURE, error, node, "add", f"{GRAPH}.{node}")
        message = Message(1, "add", b"", options=None)
        [without] = ended(graph, node, doomed, message, "a" * 32, 1e9)
        assert isinstance(after, Publish) and isinstance(without, Publish)
        largest = max(largest, len(pack(after.message)), len(pack(without.message)))
    assert largest <= 4_096
    assert len(graph.pack()) < 150 * 1_000


def test_a_large_group_takes_a_few_bytes_of_the_graph() -> None:
    shop = Workshop("memory://")
    graph = compiled(shop, chord([shop.add.s(n, n) for n in range(10_000)], shop.total.s())).graph
    assert len(graph.pack()) < 300
    assert [span.count for span in graph.spans] == [10_000, 1]


def test_a_group_is_published_in_chunks(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.canvas.publish.CHUNK", 7)
    result = chord([shop.give.s(n) for n in range(20)], shop.total.s()).delay()
    shop.run()
    assert result.get(timeout=5) == sum(range(20))
    assert result.parent.join(timeout=5) == list(range(20))


def tight(**settings: Any) -> Workshop:
    return Workshop("memory://", task_queues=[Queue("default", max_length=10)], **settings)


def test_a_group_that_fits_is_refused_whole() -> None:
    shop = tight()
    group(shop.give.s(n) for n in range(5)).delay()
    with pytest.raises(QueueFull) as full:
        chord([shop.give.s(n) for n in range(8)], shop.total.s()).delay()
    assert full.value.accepted == 0
    assert shop.app.engine.run(shop.app.broker.depth("default")) == 5
    assert shop.nothing_is_stored()


def test_a_group_larger_than_its_queue_waits_for_room() -> None:
    shop = tight()
    worker = Worker(shop.app, WorkerOptions(pool="threads", concurrency=1, loglevel="CRITICAL"))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        result = chord([shop.give.s(n) for n in range(100)], shop.total.s()).delay()
        assert result.get(timeout=10) == sum(range(100))
    finally:
        worker.stop()
        thread.join()


def test_a_queue_that_stays_full_is_told_with_what_was_published() -> None:
    shop = tight(publish_timeout=0.2)
    with pytest.raises(QueueFull) as full:
        chord([shop.give.s(n) for n in range(100)], shop.total.s()).delay()
    assert full.value.accepted == 10
    shop.run()
    assert (shop.count("give"), shop.count("total")) == (10, 0)


def test_a_single_task_in_a_full_queue_is_refused_at_once() -> None:
    shop = tight(publish_timeout=100.0)
    group(shop.give.s(n) for n in range(10)).delay()
    with pytest.raises(QueueFull):
        chain(shop.give.s(1), shop.give.s()).delay()
    assert shop.nothing_is_stored()


def test_a_task_of_a_canvas_that_is_gone_runs_and_is_not_followed(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    result = chain(shop.give.s(1), shop.add.s(1)).delay()
    app: Penstock = shop.app
    app.engine.run(app.engine.coordinator.put(graph_key(result._place.graph), None))  # type: ignore[union-attr]  # a part
    caplog.set_level("WARNING", "penstock.worker")
    shop.run()
    assert shop.made == [("give", 1)]
    assert result.state is State.UNKNOWN


def test_a_place_that_is_not_in_the_graph_fails_its_task(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1)).delay()
    place = result._place
    assert place is not None
    message = shop.app.client.prepare(shop.give, (5,), {}, {"task_id": "forged", "headers": {"x": "y"}})
    message.options = replace(message.options or Options(), place=Place(place.graph, 99))
    shop.app.engine.run(shop.app.broker.publish([message], 5.0))
    shop.run()
    assert shop.app.AsyncResult("forged").state is State.FAILURE
    assert result.get(timeout=5) == 2
