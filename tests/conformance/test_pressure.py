"""Governed queues on every engine that can have them, and a clear word where it cannot."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from penstock import Penstock, Queue, apart
from penstock.cli.pressure_text import text
from penstock.cli.show_pressure import look
from penstock.coordinator import Shared
from penstock.errors import QueueFull, Unsupported
from penstock.pressure.alarms import Alarm
from penstock.pressure.election import lead_name
from penstock.pressure.keeper import Keeper, Local
from penstock.pressure.raised import raised
from penstock.pressure.samples import Samples, Times
from tests.acceptance.processes import wait_until
from tests.servers import Server

SERVERS = ("redis_url", "postgres_url", "broker")


SPLIT = "rabbitmq_url"
"""Its small shared state is where results are."""


@pytest.fixture(params=["sqlite", *SERVERS, SPLIT])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    given = request.getfixturevalue(request.param)
    return given.url if isinstance(given, Server) else str(given)


@pytest.fixture
def results(request: pytest.FixtureRequest, url: str) -> str | None:
    """Where they are, if not beside the tasks."""
    return str(request.getfixturevalue("redis_url")) if url.startswith("amqp") else None


@contextmanager
def opened(url: str, queue: Queue, results: str | None = None) -> Iterator[Penstock]:
    app = Penstock("pressed", broker=url, result_backend=results, task_queues=[queue])
    app.task(name="t", queue=queue.name)(lambda: None)
    yield app
    app.close()


def state(app: Penstock) -> Shared:
    found = apart.shared(app)
    assert found is not None
    return found


def alarms(app: Penstock) -> dict[str, list[Alarm]]:
    return app.engine.run(raised(state(app), "", time.time()))


def bound(app: Penstock, name: str) -> int:
    return next(one.max_length for one in app.engine.run(app.engine.inspect.queues()) if one.name == name)


def govern(app: Penstock, name: str, seconds: float, slots: int = 2) -> None:
    """One look of a worker process whose tasks have taken so long."""
    times = Times()
    times.add(seconds, 100.0)
    local = Local(slots, [Samples([(name, "t", times)], {})])
    app.engine.run(Keeper(app, (name,), lambda: local).tick(time.monotonic()))


def test_a_worker_sets_the_bound_and_who_starts_leaves_it(url: str, results: str | None) -> None:
    queue = Queue(f"pressed-{secrets.token_hex(4)}", 1_000, max_latency="1s")
    with opened(url, queue, results) as app:
        app.tasks["t"].delay()
        assert bound(app, queue.name) == 1_000
        govern(app, queue.name, 0.5)
        wait_until(lambda: bound(app, queue.name) == 4, 3.0, "the bound is set", 0.05)
        with opened(url, queue, results) as other:
            other.tasks["t"].delay_many([()] * 3)
            assert bound(other, queue.name) == 4
            with pytest.raises(QueueFull) as raised:
                other.tasks["t"].delay()
            assert raised.value.limit == 4


def test_too_old_closes_the_queue(url: str, results: str | None) -> None:
    queue = Queue(f"aged-{secrets.token_hex(4)}", 1_000, max_age="50ms")
    with opened(url, queue, results) as app:
        app.tasks["t"].delay()
        worker = Keeper(app, (queue.name,), lambda: Local(1, []))

        def closed() -> bool:
            app.engine.run(worker.tick(time.monotonic()))
            return bound(app, queue.name) == 1

        wait_until(closed, 5.0, "it is too old", 0.1)
        with pytest.raises(QueueFull):
            app.tasks["t"].delay()
        [info] = [one for one in app.engine.run(app.engine.inspect.queues()) if one.name == queue.name]
        assert info.ready == 1


def test_rabbitmq_says_that_it_cannot_alone(rabbitmq_url: str) -> None:
    for queue, results in ((Queue("pressed", max_latency=1), None), (Queue("pressed", max_age=1), rabbitmq_url)):
        app = Penstock("pressed", broker=rabbitmq_url, result_backend=results, task_queues=[queue])
        with pytest.raises(Unsupported, match=re.escape("leave out max_latency and max_age")):
            app.engine  # noqa: B018  # opening it is what is refused
        app.close()


def test_a_queue_that_fills_rings_once_whoever_leads(url: str, results: str | None) -> None:
    queue = Queue(f"filling-{secrets.token_hex(4)}", 10)
    heard: list[str] = []
    with opened(url, queue, results) as app:
        app.on_pressure(lambda event: heard.append(f"{event.state} {event.kind} {event.queue}"))

        def tick(keeper: Keeper, seconds: float) -> None:
            app.engine.run(keeper.tick(time.monotonic() + seconds))
            keeper.close()

        first, second = (Keeper(app, (queue.name,), lambda: Local(1, []), name) for name in "ab")
        app.tasks["t"].delay_many([()] * 8)
        tick(first, 0)
        tick(second, 0)
        assert heard == [f"raised full {queue.name}"]
        found = alarms(app)
        assert [alarm.value for alarm in found[queue.name]] == [0.8]
        app.engine.run(state(app).resign(lead_name("", queue.name), first._holder))
        tick(second, 10)
        assert len(heard) == 1, "who takes over does not ring again"
        app.engine.run(app.engine.inspect.purge(queue.name))
        tick(second, 20)
        assert heard[1:] == [f"cleared full {queue.name}"]
        assert alarms(app).get(queue.name) is None


def test_rabbitmq_shows_what_workers_tell_where_results_are(rabbitmq_url: str, tmp_path: Path) -> None:
    name = f"told-{secrets.token_hex(4)}"
    with opened(rabbitmq_url, Queue(name, 100, max_latency=10), f"sqlite:///{tmp_path / 'results.db'}") as app:
        app.tasks["t"].delay_many([()] * 20)
        govern(app, name, 0.5)
        looks = look(app, "", 0.6)
        next(looks)
        [one] = [one for one in next(looks).view.queues if one.info.name == name]
        assert (one.threads, one.wait, one.info.ready, one.full) == (2.0, 5.0, 20, 20 / one.info.max_length)
        assert one.info.max_length == 36
        with pytest.raises(QueueFull) as refused:
            app.tasks["t"].delay_many([()] * 30)
        assert 4.0 <= refused.value.retry_after <= 5.0, "half have to leave, four do in a second"


@pytest.mark.parametrize("server", ["sqlite", *SERVERS, "rabbitmq_url"])
def test_each_engine_has_a_view(request: pytest.FixtureRequest, tmp_path: Path, server: str) -> None:
    given = request.getfixturevalue(server) if server != "sqlite" else f"sqlite:///{tmp_path / 'queue.db'}"
    url = given.url if isinstance(given, Server) else given
    name = f"shown-{secrets.token_hex(4)}"
    with opened(url, Queue(name, 10)) as app:
        app.tasks["t"].delay_many([()] * 3)
        looks = look(app, "", 0.2)
        next(looks)
        [line] = [line for line in text(next(looks), 120).splitlines() if line.startswith(click.style(name, bold=True))]
        assert re.search(r" [\d–]/10 ", click.unstyle(line)), line
