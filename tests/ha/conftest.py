"""The clusters, how many faults they get, and the table of what was measured."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.absent import not_tested
from tests.acceptance.processes import Stage
from tests.ha.cluster import Cluster
from tests.ha.postgres_cluster import PostgresCluster
from tests.ha.rabbitmq_cluster import RabbitCluster
from tests.ha.redis_cluster import RedisCluster
from tests.ha.wires import Wires
from tests.servers import NotInstalled

ROWS = pytest.StashKey[list[dict[str, Any]]]()
RESULTS = Path(__file__).parents[2] / "bench" / "results"
CLUSTERS: Mapping[str, Callable[[Wires, Path], Cluster]] = {
    "redis": RedisCluster,
    "postgres": PostgresCluster,
    "rabbitmq": RabbitCluster,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=3, help="how many of each fault each cluster gets")


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--faults"))


@pytest.fixture(scope="session", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        not_tested("network namespaces need root")
    try:
        with Wires(3) as wires:
            cluster = CLUSTERS[request.param](wires, tmp_path_factory.mktemp(request.param))
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.close()
    except NotInstalled as missing:
        not_tested(missing)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """One line of the table for each cluster and fault."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("clusters that lost their leader")
    head = ("engine", "fault", "times", "median s", "longest s", "accepted", "lost", "double", "ran twice")
    terminalreporter.write_line(("{:>10} " * len(head)).format(*head))
    for row in rows:
        cells: tuple[Any, ...] = (
            row["engine"],
            row["fault"],
            len(row["gaps"]),
            f"{row['median']:.2f}",
            f"{max(row['gaps']):.2f}",
        )
        cells += (row["accepted"], row["lost"], row["double_commits"], row["repeated"])
        terminalreporter.write_line(("{:>10} " * len(head)).format(*cells))
    path = RESULTS / f"ha-{datetime.date.today():%Y-%m-%d}.json"
    kept: list[dict[str, Any]] = []
    with suppress(FileNotFoundError):
        new = {(row["engine"], row["fault"]) for row in rows}
        kept = [row for row in json.loads(path.read_text()) if (row["engine"], row["fault"]) not in new]
    path.write_text(json.dumps(kept + rows, indent=2) + "\n")
    terminalreporter.write_line(f"written to {path}")
