"""A task with `acks_late=False` is known while it runs, and its caller waits for it."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncResult, Penstock, Progress, State
from penstock.worker import Worker, WorkerOptions
from tests.unit.pools.test_pools import ANSWER, working


@pytest.fixture(params=["memory", "sqlite", "two files"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Penstock]:
    settings: Any = {"broker": "memory://"}
    if request.param != "memory":
        settings = {"broker": f"sqlite:///{tmp_path}/queue.db", "durability": "process"}
    if request.param == "two files":
        settings["result_backend"] = f"sqlite:///{tmp_path}/results.db"
    app = Penstock("early", **settings)
    yield app
    app.close()


def test_started_while_it_runs(app: Penstock) -> None:
    seen: list[State] = []

    @app.task(name="once", acks_late=False, bind=True)
    def once(self, word: str) -> str:  # type: ignore[no-untyped-def]  # the task itself, as users write it
        seen.append(AsyncResult(self.request.id, app=app).state)
        return word

    result = once.delay("done")
    assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run() == 0
    assert (seen, result.state, result.get(timeout=5)) == ([State.STARTED], State.SUCCESS, "done")


@pytest.mark.parametrize(
    ("app", "pool"),
    [("memory", "threads"), ("memory", "asyncio"), ("sqlite", "solo"), ("two files", "solo")],
    indirect=["app"],
)
def test_it_is_known_and_waited_for(app: Penstock, pool: str) -> None:
    """What its caller may do while it runs, and between two runs."""
    started, go_on = threading.Semaphore(0), threading.Semaphore(0)

    @app.task(bind=True, acks_late=False, max_retries=1, unique=True)
    def once(self: Any) -> str:
        self.progress(1, 2)
        self.publish_partial(self.request.retries)
        started.release()
        assert go_on.acquire(timeout=ANSWER)
        if not self.request.retries:
            raise self.retry(countdown=0)
        return "done"

    async def awaited(result: AsyncResult[str]) -> str:
        return await result.aget(ANSWER)

    with working(app, pool):
        result = once.apply_async(task_id="chosen")
        found: list[object] = []
        readers = [
            threading.Thread(target=lambda: found.append(result.get(ANSWER))),
            threading.Thread(target=lambda: found.append(asyncio.run(awaited(app.AsyncResult("chosen"))))),
            threading.Thread(target=lambda: found.append(list(result.stream(timeout=ANSWER)))),
        ]
        assert started.acquire(timeout=ANSWER)
        for reader in readers:
            reader.start()
        assert (result.state, result.info) == (State.STARTED, Progress(1, 2))
        assert once.apply_async(task_id="chosen").state is State.STARTED, "a repeat is no second task"
        assert once.delay().id == "chosen", "it holds its key"
        go_on.release()
        assert started.acquire(timeout=ANSWER), "it is tried again"
        assert result.state is State.STARTED
        go_on.release()
        for reader in readers:
            reader.join(ANSWER)
        assert sorted(found, key=str) == [[0, 1], "done", "done"]
    assert (result.retries, app.engine.run(app.engine.coordinator.get("started/chosen"))) == (1, None)
    result.forget()
    assert result.state is State.UNKNOWN


def test_the_thread_of_a_solo_worker_is_left_without_a_request(app: Penstock) -> None:
    from penstock.request import current

    @app.task(name="one")
    def one() -> int:
        return 1

    one.delay()
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run()
    assert current.get() is None
