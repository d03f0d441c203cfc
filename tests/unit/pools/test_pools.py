"""Every pool in this process, over the memory engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from penstock.app import Penstock
from penstock.errors import ConfigError, SoftTimeLimitExceeded, TaskRevoked, TimeLimitExceeded
from penstock.outcome import State
from penstock.pool import BUILT_IN, load
from penstock.result import AsyncResult
from penstock.worker import Worker, WorkerOptions

POOLS = ["solo", "threads", "asyncio"]
ANSWER = 20.0
"""Seconds: only a hang takes so long."""

left: ContextVar[str] = ContextVar("left", default="nothing")


@pytest.fixture
def app() -> Penstock:
    return Penstock("pools", broker="memory://")


@contextmanager
def working(app: Penstock, pool: str, concurrency: int = 2) -> Iterator[Worker]:
    worker = Worker(app, WorkerOptions(pool=pool, concurrency=concurrency))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(worker.run()))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(ANSWER)
    assert codes == [0]


@pytest.mark.parametrize("pool", POOLS)
def test_functions_and_coroutines_run(app: Penstock, pool: str) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    async def aadd(x: int, y: int) -> int:
        await asyncio.sleep(0)
        return x + y

    results = [task.delay(n, n) for n in range(50) for task in (add, aadd)]
    with working(app, pool):
        assert [result.get(timeout=ANSWER) for result in results] == [2 * (n // 2) for n in range(100)]


@pytest.mark.parametrize("pool", POOLS)
def test_work_that_comes_later_is_found(app: Penstock, pool: str) -> None:
    @app.task
    async def one() -> int:
        return 1

    with working(app, pool):
        for _ in range(20):
            assert one.delay().get(timeout=ANSWER) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_nothing_leaks_from_one_job_into_the_next(app: Penstock, pool: str) -> None:
    @app.task
    def plain() -> str:
        before = left.get()
        left.set("plain")
        return before

    @app.task
    async def coroutine() -> str:
        before = left.get()
        left.set("coroutine")
        return before

    with working(app, pool, concurrency=1):
        results: list[AsyncResult[str]] = [task.delay() for _ in range(10) for task in (plain, coroutine)]
        assert {result.get(timeout=ANSWER) for result in results} == {"nothing"}


@pytest.mark.parametrize("pool", POOLS)
def test_retries_come_back(app: Penstock, pool: str) -> None:
    runs: list[int] = []

    @app.task(autoretry_for=(OSError,), default_retry_delay=0.0)
    def shaky() -> int:
        runs.append(1)
        if len(runs) < 3:
            raise OSError
        return len(runs)

    with working(app, pool):
        assert shaky.delay().get(timeout=ANSWER) == 3


@pytest.mark.parametrize("pool", POOLS)
def test_at_most_once_tasks_run_and_keep_their_results(app: Penstock, pool: str) -> None:
    @app.task(acks_late=False)
    def early() -> int:
        return 1

    with working(app, pool):
        assert early.delay().get(timeout=ANSWER) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_a_slow_task_does_not_hold_back_its_batch(app: Penstock, pool: str) -> None:
    going, blocked = threading.Event(), threading.Event()

    @app.task
    def quick(n: int) -> int:
        return n

    @app.task
    def slow() -> str:
        blocked.set()
        going.wait(ANSWER)
        return "slow"

    # Enough short ones for a large batch, then one that blocks in the middle of others.
    first = [quick.delay(n) for n in range(500)]
    held = slow.delay()
    behind = [quick.delay(n) for n in range(20)]
    with working(app, pool, concurrency=1):
        assert blocked.wait(ANSWER)
        assert [result.get(timeout=ANSWER) for result in first] == list(range(500))
        other = threading.Thread(target=_drain, args=(app,))
        other.start()
        assert [result.get(timeout=ANSWER) for result in behind] == list(range(20))
        going.set()
        assert held.get(timeout=ANSWER) == "slow"
        other.join(ANSWER)


def _drain(app: Penstock) -> None:
    """A second worker, which gets what the first hands back."""
    worker = Worker(app, WorkerOptions(pool="threads", concurrency=1))
    thread = threading.Thread(target=worker.run)
    thread.start()
    while app.engine.run(app.engine.broker.depth("default")):
        time.sleep(0.01)
    worker.stop()
    thread.join(ANSWER)


@pytest.mark.parametrize("pool", POOLS)
def test_a_coroutine_is_ended_at_its_limits(app: Penstock, pool: str) -> None:
    @app.task(soft_time_limit=0.05)
    async def soft() -> None:
        await asyncio.sleep(ANSWER)

    @app.task(time_limit=0.05, autoretry_for=(Exception,))
    async def hard() -> None:
        await asyncio.sleep(ANSWER)

    with working(app, pool):
        with pytest.raises(SoftTimeLimitExceeded):
            soft.delay().get(timeout=ANSWER)
        with pytest.raises(TimeLimitExceeded):
            hard.delay().get(timeout=ANSWER)


def test_a_thread_gets_its_soft_limit(app: Penstock) -> None:
    def wait() -> None:
        end = time.monotonic() + ANSWER
        while time.monotonic() < end:
            pass

    @app.task(soft_time_limit=0.05)
    def spin() -> str:
        try:
            wait()  # not the loop itself: CPython leaves its jump back out of the range of `try`
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "not interrupted"

    with working(app, "threads"):
        assert spin.delay().get(timeout=ANSWER) == "cleaned up"


@pytest.mark.parametrize("pool", POOLS)
def test_a_revoked_coroutine_is_cancelled_and_the_slot_goes_on(app: Penstock, pool: str) -> None:
    started = threading.Event()

    @app.task
    async def long() -> None:
        started.set()
        await asyncio.sleep(ANSWER)

    @app.task
    async def one() -> int:
        return 1

    with working(app, pool, concurrency=1):
        result = long.delay()
        assert started.wait(ANSWER)
        result.revoke()
        with pytest.raises(TaskRevoked):
            result.get(timeout=ANSWER)
        assert result.state == State.REVOKED
        assert one.delay().get(timeout=ANSWER) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_a_burst_ends_when_nothing_is_ready(app: Penstock, pool: str) -> None:
    @app.task
    def one() -> int:
        return 1

    results = [one.delay() for _ in range(300)]
    assert Worker(app, WorkerOptions(pool=pool, burst=True)).run() == 0
    assert {result.get(timeout=0) for result in results} == {1}


@pytest.mark.parametrize("pool", POOLS)
def test_a_warm_stop_finishes_what_runs_and_hands_back_the_rest(app: Penstock, pool: str) -> None:
    started, going = threading.Event(), threading.Event()

    @app.task
    def slow() -> int:
        started.set()
        going.wait(ANSWER)
        return 1

    results = [slow.delay() for _ in range(5)]
    worker = Worker(app, WorkerOptions(pool=pool, concurrency=1))
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert started.wait(ANSWER)
    worker.stop()
    going.set()
    thread.join(ANSWER)
    states = [result.state for result in results]
    assert states.count(State.SUCCESS) >= 1
    assert set(states) <= {State.SUCCESS, State.PENDING}
    (info,) = app.engine.run(app.engine.inspect.queues())
    assert info.leased == 0
    assert info.ready == states.count(State.PENDING)


def test_limits_that_a_pool_cannot_keep_are_refused(app: Penstock) -> None:
    @app.task(name="greedy", time_limit=5.0)
    def greedy() -> None: ...

    with pytest.raises(ConfigError, match=r"'greedy'.*-P prefork"):
        Worker(app, WorkerOptions(pool="threads"))


def test_a_coroutine_may_have_limits_in_any_pool(app: Penstock) -> None:
    @app.task(time_limit=5.0, soft_time_limit=3.0)
    async def polite() -> None: ...

    for pool in BUILT_IN:
        Worker(app, WorkerOptions(pool=pool))


def test_processes_are_refused_for_a_store_in_memory(app: Penstock) -> None:
    with pytest.raises(ConfigError, match="lives in this process"):
        Worker(app, WorkerOptions(pool="prefork")).run()


@pytest.mark.parametrize("name", ["unheard", "no.such.module:Pool", "penstock.pools.inline:Nothing"])
def test_an_unknown_pool_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        load(name)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError])
def test_no_error_of_a_task_ends_its_worker(app: Penstock, pool: str, error: type[BaseException]) -> None:
    @app.task
    def plain() -> None:
        raise error

    @app.task
    async def coroutine() -> None:
        raise error

    @app.task
    def fine() -> int:
        return 1

    with working(app, pool, concurrency=1):
        results = [plain.delay(), coroutine.delay()]
        assert fine.delay().get(timeout=ANSWER) == 1
        for result in results:
            result.get(timeout=ANSWER, propagate=False)
            assert result.state is State.FAILURE
