"""A real worker inside a test."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import ConfigError, Penstock, State
from penstock.contrib.clock import TravelClock
from penstock.contrib.live import live_worker
from penstock.contrib.rehearsal import rehearse


@pytest.fixture
def clock() -> TravelClock:
    return TravelClock()


@pytest.fixture
def app(clock: TravelClock) -> Iterator[Penstock]:
    app = Penstock("shop")
    with rehearse(app, clock):
        yield app


def test_it_serves_until_the_block_ends(app: Penstock, clock: TravelClock) -> None:
    threads: list[str] = []

    @app.task(name="t")
    def task(x: int) -> int:
        threads.append(threading.current_thread().name)
        return 2 * x

    with live_worker(app, clock):
        assert task.delay(2).get(timeout=10) == 4
    assert threads[0].startswith("penstock-slot")
    assert task.delay(3).state is State.PENDING
    assert clock.listeners == []
    assert not [
        one
        for one in threading.enumerate()
        if one.name.startswith(("penstock-slot", "penstock-watchdog", "penstock-live"))
    ]


def test_time_travel_wakes_it(app: Penstock, clock: TravelClock) -> None:
    task = app.task(name="t")(lambda: 5)
    with live_worker(app, clock, concurrency=1):
        assert len(clock.listeners) == 1  # without, it would look for itself only after a while
        later = task.apply_async(countdown=3600)
        assert task.delay().get(timeout=10) == 5
        assert later.state is State.PENDING
        clock.advance(3600)
        assert later.get(timeout=10) == 5


def test_a_long_leap_takes_no_work_from_it(app: Penstock, clock: TravelClock) -> None:
    runs: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    @app.task(name="t")
    def task() -> int:
        runs.append(1)
        started.set()
        go_on.wait(10)
        return 5

    with live_worker(app, clock):
        result = task.delay()
        assert started.wait(10)
        clock.advance(30 * 86_400)
        go_on.set()
        assert result.get(timeout=10) == 5
    assert runs == [1]


def test_a_block_that_ends_at_once(app: Penstock, clock: TravelClock) -> None:
    for _ in range(20):
        with live_worker(app, clock):
            pass


def test_limits_and_brokers_that_it_cannot_keep(app: Penstock, clock: TravelClock, tmp_path: Path) -> None:
    app.task(name="t", time_limit=5)(lambda: None)
    with pytest.raises(ConfigError, match="time_limit=5"), live_worker(app, clock):
        pass
    other = Penstock("other", broker=f"sqlite:///{tmp_path}/queue.db")
    with pytest.raises(ConfigError, match="serves memory:// only"), live_worker(other, clock):
        pass
    other.close()
