"""A task that is acknowledged before it runs is STARTED while it runs, and its caller waits for it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import AsyncResult, Penstock, State
from penstock.worker import Worker, WorkerOptions


@pytest.fixture
def app(tmp_path: Path) -> Penstock:
    return Penstock("early", broker=f"sqlite:///{tmp_path}/queue.db?durability=process")


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """A worker sets the level of the process; the other tests have theirs."""
    log = logging.getLogger("penstock")
    before = log.level
    yield
    log.setLevel(before)


def test_started_while_it_runs(app: Penstock) -> None:
    seen: list[State] = []

    @app.task(name="once", acks_late=False, bind=True)
    def once(self, word: str) -> str:  # type: ignore[no-untyped-def]  # the task itself, as users write it
        seen.append(AsyncResult(self.request.id, app=app).state)
        return word

    result = once.delay("done")
    assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run() == 0
    assert (seen, result.state, result.get(timeout=5)) == ([State.STARTED], State.SUCCESS, "done")


def test_the_thread_of_a_solo_worker_is_left_without_a_request(app: Penstock) -> None:
    from penstock.request import current

    @app.task(name="one")
    def one() -> int:
        return 1

    one.delay()
    Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="ERROR")).run()
    assert current.get() is None
