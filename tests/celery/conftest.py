from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import Penstock
from penstock.contrib.clock import TravelClock
from penstock.worker import Worker, WorkerOptions

Work = Callable[[], None]


@pytest.fixture
def clock() -> TravelClock:
    return TravelClock()


@pytest.fixture
def app(tmp_path: Path, clock: TravelClock) -> Iterator[Penstock]:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}", durability="process", clock=clock)
    yield app
    app.close()


@pytest.fixture
def work(app: Penstock) -> Work:
    """Runs what is ready, and what follows it, on this thread."""

    def run() -> None:
        assert Worker(app, WorkerOptions(pool="solo", burst=True, loglevel="CRITICAL")).run() == 0

    return run
