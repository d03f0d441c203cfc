"""Where tasks and results are on two servers, the ordered committer keeps the promises as far as that can be."""

import functools

import pytest

from penstock.testing.conformance import Check, run, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.kits import OneByOneBroker, PublishingBroker, SplitBroker, SplitKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_two_servers(check: Check, blocking: bool) -> None:
    run_check(check, functools.partial(SplitKit, PublishingBroker, blocking=blocking))


@pytest.mark.parametrize("check", CASES)
def test_one_by_one(check: Check) -> None:
    run_check(check, functools.partial(SplitKit, OneByOneBroker, blocking=True))


@pytest.mark.parametrize("area", ["publish", "step", "lease", "delay", "effects", "result"])
def test_a_broker_without_any_effects(area: str) -> None:
    report = run(functools.partial(SplitKit, SplitBroker, blocking=True), [area])
    assert report.ok, str(report)


def test_follow_ups_that_find_a_full_queue_are_not_lost() -> None:
    """A broker without the Publish effect cannot tell them from new work: the settlement raises, and is repeated."""
    report = run(functools.partial(SplitKit, SplitBroker, blocking=True), ["bound"])
    assert [failure.check for failure in report.failures] == ["check_follow_ups_are_admitted_into_a_full_queue"]
    assert "follow-ups were not accepted" in str(report)
