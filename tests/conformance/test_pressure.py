"""Governed queues on every engine that can have them, and a clear word where it cannot."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import Penstock, Queue
from penstock.errors import QueueFull, Unsupported
from penstock.pressure.keeper import Keeper, Local
from penstock.pressure.samples import Samples, Times
from tests.servers import Server

SERVERS = ("redis_url", "postgres_url", "broker")


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    given = request.getfixturevalue(request.param)
    return given.url if isinstance(given, Server) else str(given)


@contextmanager
def opened(url: str, queue: Queue) -> Iterator[Penstock]:
    app = Penstock("pressed", broker=url, task_queues=[queue])
    app.task(name="t", queue=queue.name)(lambda: None)
    yield app
    app.close()


def bound(app: Penstock, name: str) -> int:
    return next(one.max_length for one in app.engine.run(app.engine.inspect.queues()) if one.name == name)


def govern(app: Penstock, name: str, seconds: float, slots: int = 2) -> None:
    """One look of a worker process whose tasks have taken so long."""
    times = Times()
    times.add(seconds, 100.0)
    local = Local(slots, [Samples([(name, "t", times)], {})])
    app.engine.run(Keeper(app, (name,), lambda: local).tick(time.monotonic()))


def test_a_worker_sets_the_bound_and_who_starts_leaves_it(url: str) -> None:
    queue = Queue(f"pressed-{secrets.token_hex(4)}", 1_000, max_latency="1s")
    with opened(url, queue) as app:
        app.tasks["t"].delay()
        assert bound(app, queue.name) == 1_000
        govern(app, queue.name, 0.5)
        assert bound(app, queue.name) == 4
        with opened(url, queue) as other:
            other.tasks["t"].delay_many([()] * 3)
            assert bound(other, queue.name) == 4
            with pytest.raises(QueueFull) as raised:
                other.tasks["t"].delay()
            assert raised.value.limit == 4


def test_too_old_closes_the_queue(url: str) -> None:
    queue = Queue(f"aged-{secrets.token_hex(4)}", 1_000, max_age="50ms")
    with opened(url, queue) as app:
        app.tasks["t"].delay()
        time.sleep(0.1)
        govern(app, queue.name, 0.5)
        with pytest.raises(QueueFull):
            app.tasks["t"].delay()
        assert app.engine.run(app.broker.depth(queue.name, "")) == 1


def test_rabbitmq_says_that_it_cannot(rabbitmq_url: str) -> None:
    for queue in (Queue("pressed", max_latency=1), Queue("pressed", max_age=1)):
        app = Penstock("pressed", broker=rabbitmq_url, task_queues=[queue])
        with pytest.raises(Unsupported, match=re.escape("leave out max_latency and max_age")):
            app.engine  # noqa: B018  # opening it is what is refused
        app.close()
