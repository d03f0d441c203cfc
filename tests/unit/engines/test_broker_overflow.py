"""A full queue of a broker: its publishers are answered at once, or wait for room; and what they are told then."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from penstock import Penstock, Queue, QueueFull
from penstock.broker import Demand, Features, check_queues
from penstock.delivery import ACK, Settlement
from penstock.errors import ConfigError, TaskShed, Unsupported
from tests.servers import Server


@pytest.fixture
def queue() -> str:
    return f"q-{uuid.uuid4().hex}"


@pytest.fixture
def app(broker: Server, queue: str) -> Iterator[Penstock]:
    """Its queue holds one task, has one, and makes publishers wait for a second."""
    full = Queue(queue, max_length=1, overflow="block")
    app = Penstock("shop", broker=broker.url, publish_timeout=1, task_queues=[full])
    app.send_task("shop.first", queue=queue)
    yield app
    app.close()


def test_who_waited_in_vain_is_told_that_it_is_full(app: Penstock, queue: str) -> None:
    began = time.monotonic()
    with pytest.raises(QueueFull, match="is full: 1 of 1 tasks"):
        app.send_task("shop.second", queue=queue)
    assert 0.4 < time.monotonic() - began < 1.5
    assert app.engine.run(app.engine.broker.depth(queue)) == 1


def test_who_waits_gets_in_when_there_is_room(app: Penstock, broker: Server, queue: str) -> None:
    with closing(Penstock("worker", broker=broker.url)) as other:
        engine = other.engine
        step = engine.run(engine.broker.step([], Demand((queue,), 1, "w-" + queue)))
        ends = [Settlement(one.receipt, ACK) for one in step.deliveries]
        room = threading.Timer(0.1, lambda: engine.run(engine.broker.step(ends, None)))
        room.start()
        app.send_task("shop.second", queue=queue)
        room.join()
        (waiting,) = engine.run(engine.inspect.peek(queue))
    assert waiting.message is not None
    assert waiting.message.task == "shop.second"


def test_who_waits_for_what_gave_way_is_told_at_once(broker: Server, queue: str) -> None:
    full = Queue(queue, max_length=1, overflow="drop-oldest")
    with (
        closing(Penstock("shop", broker=broker.url, task_queues=[full])) as app,
        closing(Penstock("shop", broker=broker.url, task_queues=[full])) as other,
    ):
        waiting = app.send_task("shop.first", queue=queue)
        rival = threading.Timer(0.2, lambda: other.send_task("shop.second", queue=queue))
        rival.start()
        with pytest.raises(TaskShed, match=f"shed: queue '{queue}' was full \\(limit 1 tasks\\)"):
            waiting.get(timeout=20)
        rival.join()
        [letter] = app.engine.run(app.engine.inspect.dead_letters(queue))
        assert letter.id == waiting.id
        assert app.engine.run(app.engine.inspect.retry_dead([letter.id])) == 1
        assert app.AsyncResult(waiting.id).state == "PENDING"
        [info] = [one for one in app.engine.run(app.engine.inspect.queues()) if one.name == queue]
        assert (info.depth, info.shed, info.settled) == (2, 1, 1)


def test_an_engine_that_cannot_refuses_it() -> None:
    with pytest.raises(Unsupported, match="cannot make publishers wait"):
        Penstock("shop", broker="memory://", task_queues=[Queue("mail", overflow="block")]).send_task("shop.mail")
    features = Features("other", True, 1, frozenset(), frozenset())
    with pytest.raises(Unsupported, match="cannot shed tasks of a full queue: leave out overflow='drop-oldest'"):
        check_queues(features, [Queue("mail", overflow="drop-oldest")])
    with pytest.raises(ConfigError, match="'reject', 'block', 'shed-lowest-priority', 'drop-oldest', not 'drop'"):
        Queue("mail", overflow="drop")  # type: ignore[arg-type]  # that is the point
