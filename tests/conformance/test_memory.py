"""The memory engine keeps every promise, for blocking and for awaiting callers."""

import functools

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.kits import MemoryKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_memory(check: Check, blocking: bool) -> None:
    run_check(check, functools.partial(MemoryKit, blocking=blocking))
