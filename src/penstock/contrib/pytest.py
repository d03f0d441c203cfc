"""Fixtures for pytest, which finds them by itself (entry point `pytest11`).

No app, engine or worker is imported for a run that does not use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.config import Settings
    from penstock.contrib.clock import TravelClock
    from penstock.contrib.rehearsal import Rehearsal
    from penstock.worker import Worker

APP = "penstock_app"
MARK = "penstock"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(APP, "the app of this project, as module:name; each test has it on a queue in memory", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(**settings): settings of the Penstock app for this test")


@pytest.fixture
def penstock_config() -> Settings:
    """Settings of the app in tests; redefine it in a conftest.py or module."""
    return {}


@pytest.fixture
def penstock_worker_parameters() -> dict[str, Any]:
    """`concurrency` and `queues` of `penstock_worker`; redefine it."""
    return {}


@pytest.fixture
def penstock_clock() -> TravelClock:
    """The app's clock: it stands still until `advance(seconds)` or `move_to(date)`."""
    from penstock.contrib.clock import TravelClock

    return TravelClock()


@pytest.fixture
def penstock_app(
    request: pytest.FixtureRequest, penstock_config: Settings, penstock_clock: TravelClock
) -> Iterator[Penstock]:
    """The project's app, or a new one without tasks, on a queue in memory that is gone with the test."""
    from penstock.contrib.rehearsal import in_memory

    settings: Any = {**penstock_config}
    for mark in reversed(list(request.node.iter_markers(MARK))):
        settings.update(mark.kwargs)
    with in_memory(_named(request.config.getini(APP)), penstock_clock, **settings) as app:
        yield app


@pytest.fixture
def penstock_tasks(penstock_app: Penstock, penstock_clock: TravelClock) -> Rehearsal:
    """What the app has enqueued, and means to run it on the test's own thread."""
    from penstock.contrib.rehearsal import Rehearsal

    return Rehearsal(penstock_app, penstock_clock)


@pytest.fixture
def penstock_worker(
    penstock_app: Penstock, penstock_clock: TravelClock, penstock_worker_parameters: dict[str, Any]
) -> Iterator[Worker]:
    """A real worker on threads of this process, stopped when the test has ended."""
    from penstock.contrib.live import live_worker

    with live_worker(penstock_app, penstock_clock, **penstock_worker_parameters) as worker:
        yield worker


@pytest.fixture(autouse=True)
def _penstock_apart(request: pytest.FixtureRequest) -> None:
    """A project that names its app has it redirected for tests, too, that do not think of it."""
    if request.config.getini(APP):
        request.getfixturevalue("penstock_app")


def _named(name: str) -> Penstock:
    from penstock.app import Penstock
    from penstock.errors import ConfigError
    from penstock.importing import named

    if not name:
        return Penstock("tests")
    try:
        app = named(name)
    except ConfigError as error:
        raise pytest.UsageError(f"{APP} = {name}: {error}") from error
    if not isinstance(app, Penstock):
        raise pytest.UsageError(f"{APP} = {name}: that is {app!r}, not an app; write module:name")
    return app
