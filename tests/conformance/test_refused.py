"""Who is refused is known on every engine that keeps shared state, however many are refused at a time."""

from __future__ import annotations

import asyncio
import secrets
import threading
from pathlib import Path

import pytest

from penstock import Penstock, Queue, apart, refusals
from penstock.errors import QueueFull
from penstock.pressure.overview import Overview, overview
from penstock.pressure.refused import with_totals
from penstock.refusals import on_behalf_of
from tests.acceptance.processes import wait_until
from tests.servers import Server

SERVERS = ("redis_url", "postgres_url", "broker")


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.db'}"
    given = request.getfixturevalue(request.param)
    return given.url if isinstance(given, Server) else str(given)


def opened(url: str, queue: Queue) -> Penstock:
    app = Penstock("refused", broker=url, task_queues=[queue])
    app.task(name="t", queue=queue.name)(lambda: None)
    return app


def look(app: Penstock) -> Overview:
    return app.engine.run(overview(app.engine, apart.shared(app), app.clock, ""))


def refused(app: Penstock, calls: int) -> None:
    for _ in range(calls):
        with pytest.raises(QueueFull):
            app.tasks["t"].delay()


def test_refusals_are_counted_by_who_is_refused(url: str) -> None:
    queue = Queue(f"refused-{secrets.token_hex(4)}", 2)
    watcher = opened(url, queue)
    watcher.tasks["t"].delay_many([()] * 2)
    apps = [watcher, opened(url, queue)]  # both live at once: what a process counts is never another's
    threads = [threading.Thread(target=refused, args=(app, 20)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def awaiting() -> None:
        with pytest.raises(QueueFull):
            await apps[1].tasks["t"].adelay_many([()] * 5)

    asyncio.run(awaiting())
    for app in apps:
        app.client.refusals.close()

    def total() -> int | None:
        return next(one.info.refused for one in look(watcher).queues if one.info.name == queue.name)

    wait_until(lambda: total() == 45, 10.0, "all of it is known", 0.05)  # a broker tells it each second
    infos = watcher.engine.run(with_totals(watcher.engine, watcher.engine.run(watcher.engine.inspect.queues("")), 0.0))
    assert {one.name: one.refused for one in infos}[queue.name] == 45
    view = look(watcher)
    found = [one for _, one in view.refusals if one.queue == queue.name]
    assert sum(one.count for one in found) == 45
    assert {one.task for one in found} == {"t"}
    assert sum(one.rate(view.at) for one in found) > 0
    who = {one.who for one in found}
    assert len(who) == 1
    if watcher.engine.broker.features.counts_refusals:
        assert who.pop().endswith("@127.0.0.1")
    else:
        assert who.pop().startswith("refused[")
    for app in apps:
        app.close()


def test_a_client_of_ours_is_told_apart(url: str) -> None:
    queue = Queue(f"clients-{secrets.token_hex(4)}", 1)
    app = opened(url, queue)
    if app.engine.broker.features.counts_refusals:
        app.close()
        return  # it knows its own users
    app.tasks["t"].delay()
    refused(app, 1)
    with on_behalf_of("alice"):
        refused(app, 2)

    async def awaiting(client: str) -> None:
        with on_behalf_of(client):
            for _ in range(3):
                with pytest.raises(QueueFull):
                    await app.tasks["t"].adelay()

    async def many() -> None:
        await asyncio.gather(*map(awaiting, ("bob", "carol")))

    asyncio.run(many())
    app.client.refusals.close()
    found = {one.who.rpartition(" by ")[0]: one.count for _, one in look(app).refusals if one.queue == queue.name}
    assert found == {"": 1, "alice": 2, "bob": 3, "carol": 3}
    app.close()


def test_what_takes_too_long_to_tell_opens_no_engine_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(f"sqlite:///{tmp_path / 'queue.db'}", Queue("mail", 1))
    telling, goes_on = threading.Event(), threading.Event()

    async def slowly(*args: object) -> bool:
        telling.set()
        goes_on.wait(10)
        return True

    monkeypatch.setattr(refusals, "tell", slowly)
    monkeypatch.setattr(refusals, "PATIENCE", 0.01)
    app.tasks["t"].delay()
    refused(app, 1)
    assert telling.wait(10)
    [thread] = [one for one in threading.enumerate() if one.name == "penstock-refusals"]
    refused(app, 1)  # there is more to tell
    app.close()
    goes_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert app._engine is None
