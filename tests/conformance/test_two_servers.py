"""Where tasks and results are on two servers, the ordered committer keeps the promises as far as that can be."""

import functools

import pytest

from penstock.testing.conformance import Check, run, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.kits import LooseBroker, OneByOneBroker, PublishingBroker, SplitBroker, SplitKit


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


def test_a_broker_without_any_effects() -> None:
    report = run(functools.partial(SplitKit, SplitBroker, blocking=True))
    assert report.ok, str(report)
