"""Where tasks and results are on two servers, the ordered committer keeps the promises as far as that can be."""

import functools
from pathlib import Path

import pytest

from penstock.clock import ManualClock
from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.testing.conformance import Check, run, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.kits import LooseBroker, OneByOneBroker, PublishingBroker, SplitBroker, SplitKit
from tests.conformance.sqlite_kit import SqliteKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_two_servers(check: Check, blocking: bool) -> None:
    run_check(check, functools.partial(SplitKit, PublishingBroker, blocking=blocking))


@pytest.mark.parametrize("check", CASES)
def test_one_by_one(check: Check) -> None:
    run_check(check, functools.partial(SplitKit, OneByOneBroker, blocking=True))


@pytest.mark.parametrize("check", CASES)
def test_what_is_kept_in_part(check: Check) -> None:
    run_check(check, functools.partial(SplitKit, LooseBroker, blocking=True))


@pytest.mark.parametrize("check", CASES)
def test_results_in_a_file(check: Check, tmp_path: Path) -> None:
    """The embedded engine keeps results of tasks that it never saw."""

    def open_results(clock: ManualClock) -> Engine:
        return open_engine(f"sqlite:///{tmp_path}/results.db", clock=clock, durability="process")

    run_check(check, functools.partial(SplitKit, PublishingBroker, blocking=True, open_results=open_results))


FORGETS = "same_id_is_recognised_while_it_runs_and_when_it_ended"
"""What has ended without a result here is forgotten here: its id is known where the result is. (The committer asks
there before it publishes a follow-up again.)"""


@pytest.mark.parametrize("check", [case for case in CASES if FORGETS not in str(case.id)])
def test_tasks_in_a_file(check: Check, tmp_path: Path) -> None:
    run_check(check, functools.partial(SqliteKit, tmp_path / "tasks.db", blocking=True, results_in_memory=True))


def test_a_broker_without_any_effects() -> None:
    report = run(functools.partial(SplitKit, SplitBroker, blocking=True))
    assert report.ok, str(report)
