"""Real servers for the tests: one of each per test process, started when first asked for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.absent import not_tested
from tests.servers import NotInstalled, Server, broker_server, postgres_server, rabbitmq_server, redis_server

NETWORK = ("redis_url", "rabbitmq_url", "postgres_url")
SERVERS = (*NETWORK, "broker")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # All tests of one server in one xdist process, so that RabbitMQ, which takes seconds, starts once.
    for item in items:
        for name in SERVERS:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))
                if name in NETWORK:
                    item.add_marker(pytest.mark.network)


@pytest.fixture(autouse=True)
def own_log_level() -> Iterator[None]:
    """A worker that a test runs in this process sets the level for all that come after it."""
    log = logging.getLogger("penstock")
    before = log.level
    yield
    log.setLevel(before)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url(redis_server, tmp_path_factory.mktemp("redis"))


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url(rabbitmq_server, tmp_path_factory.mktemp("rabbitmq"))


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _url(postgres_server, tmp_path_factory.mktemp("postgres"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with broker_server(tmp_path_factory.mktemp("broker")) as server:
        yield server


def _url(start: Callable[[Path], AbstractContextManager[Server]], directory: Path) -> Iterator[str]:
    try:
        with start(directory) as server:
            yield server.url
    except NotInstalled as missing:
        not_tested(missing)
