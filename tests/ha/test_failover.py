"""Clusters lose their leader under load: killed, frozen, cut off. `make test-ha`, FAULTS times each."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest

from penstock.testing.checkers import Ledger, all_started, no_loss, nothing_invented, single_commit
from penstock.testing.history import read_history
from tests.acceptance.load import Load
from tests.acceptance.mill import Mill
from tests.acceptance.processes import Process, Stage, wait_until
from tests.ha.cluster import Cluster, Fault

MEDIAN = 12.0
"""Seconds: what MongoDB's replica set promises."""
OVER, LONGEST = 0.5, 60.0
"""Seconds of publishing after which a gap is over, and after which it is taken for endless."""


def start_worker(stage: Stage, cluster: Cluster, queue: str) -> Process:
    results = ("--results", cluster.results) if cluster.results else ()
    log = stage.folder / "worker.log"
    return stage.start("mill", *results, "--queue", queue, "--log", log, cluster.url, stage.history)


def measure_gap(load: Load, moment: float) -> float:
    """Wait until publishing goes on again for a while; the longest time without, since a little before `moment`."""

    def goes_on() -> bool:
        late = [at for at in list(load.accepted_at) if at > moment + 1.0]
        return bool(late) and late[-1] - late[0] >= OVER and load.longest_gap(late[0]) > 0

    wait_until(goes_on, LONGEST, "publishing goes on after the fault", 0.05)
    return load.longest_gap(moment)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", Fault)
def test_the_leader_fails(
    cluster: Cluster, fault: Fault, faults: int, stage: Stage, rows: list[dict[str, Any]]
) -> None:
    queue = f"mill-{fault.lower()}"
    mill = Mill(cluster.url, stage.history, results=cluster.results, queue=queue)
    worker = start_worker(stage, cluster, queue)
    gaps, leaders = [], []
    with Load(mill, pace=0.03) as load:
        wait_until(lambda: load.accepted_at, 30, "publishing begins")
        wait_until(lambda: Ledger(read_history(stage.history)).starts, 30, "work begins", 0.1)
        for _ in range(faults):
            time.sleep(1.5)
            leader = cluster.leader(queue)
            leaders.append(leader)
            moment = time.monotonic()
            cluster.strike(leader, fault)
            gaps.append(measure_gap(load, moment))
            cluster.heal(leader, fault)
            published = len(load.accepted_at)
            wait_until(lambda count=published: len(load.accepted_at) > count + 1, LONGEST, "publishing goes on", 0.05)
    names = sorted(Ledger(read_history(stage.history)).accepted)
    wait_until(lambda: all(one.terminal for one in mill.states(names).values()), 120, "all has ended", 0.5)
    worker.terminate()
    assert worker.wait(30) == 0
    ledger = Ledger(read_history(stage.history))
    remains = mill.remains(ledger.asked)
    mill.app.close()
    lost, double = no_loss(ledger, remains), single_commit(ledger)
    rows.append(
        {
            "engine": cluster.kind,
            "fault": str(fault),
            "gaps": [round(gap, 3) for gap in gaps],
            "median": round(statistics.median(gaps), 3),
            "leaders": leaders,
            "accepted": len(ledger.accepted),
            "lost": len(lost.tasks),
            "committed": len(ledger.commits),
            "double_commits": len(double.tasks),
            "repeated": ledger.repeated(),
            "late": sum(ledger.late.values()),
            "acknowledged_again": ledger.acknowledged_again(),
            "errors": dict(load.errors),
        }
    )
    assert ledger.commits, "nobody saw a commit"
    for finding in (lost, nothing_invented(ledger, remains), all_started(ledger, remains), double):
        assert finding.ok, str(finding)
    assert statistics.median(gaps) <= MEDIAN, gaps
