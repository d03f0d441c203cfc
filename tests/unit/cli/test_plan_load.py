"""What `penstock plan` says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.coordinator import Coordinator
from penstock.engines.sqlite import open_engine
from penstock.pressure.reports import Report, shard_name, with_report
from penstock.pressure.samples import Samples, Times


def plan(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--broker", url, "plan", "--latency", "2s", "--rate", "500/s", *arguments])


async def tell(coordinator: Coordinator, *entries: tuple[str, str, float, int]) -> None:
    found = []
    for queue, task, seconds, count in entries:
        times = Times()
        times.add(seconds, count)
        found.append((queue, task, times))
    report = Report(time.time(), 2, ("mail",), Samples(found))
    await coordinator.put(shard_name("", 3), with_report(None, "a", report))


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    engine = open_engine(url)
    engine.run(
        tell(
            engine.coordinator, ("mail", "tasks.short", 0.01, 90), ("mail", "tasks.long", 0.31, 10), ("x", "y", 1.0, 1)
        )
    )
    engine.close()
    return url


def test_sampled_times_of_a_queue(url: str) -> None:
    found = plan(url, "--queue", "mail")
    assert found.exit_code == 0, found.output
    assert "500 tasks/s of 40 ms each: 20 threads' work" in found.output
    assert "25, busy 80% of the time" in found.output
    lines = found.output.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["tasks.long", "tasks.short"], "the slowest first"
    assert "78%" in lines[-2]


def test_a_given_time_needs_no_samples(url: str) -> None:
    found = plan(url, "--time", "40ms", "--json")
    data = json.loads(found.output)
    assert (data["threads"], data["queue_length"], data["slowest"]) == (25, 1250, [])


def test_a_latency_that_a_task_alone_exceeds_is_not_promised(url: str) -> None:
    assert "of which 99 % are done in 2.0 s" in plan(url, "--queue", "mail", "--time", "40ms").output
    assert "one alone takes longer than 30 ms" in plan(url, "--latency", "30ms", "--time", "40ms").output
    assert (
        "late is what takes longer than 200 ms by itself" in plan(url, "--latency", "200ms", "--queue", "mail").output
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--queue", "nothing"), "no task of queue 'nothing' was sampled yet"),
        (("--rate", "fast"), "--rate must be a number a second"),
        (("--rate", "0"), "--rate must be above 0"),
        (("--latency", "-1"), "--latency must be seconds above 0"),
        (("--time", "soon"), "--time must be seconds above 0"),
    ],
)
def test_what_cannot_be_planned(url: str, arguments: tuple[str, ...], says: str) -> None:
    found = plan(url, *arguments)
    assert found.exit_code != 0
    assert says in str(found.exception)
