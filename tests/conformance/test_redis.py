"""Redis keeps every promise, for blocking and for awaiting callers."""

import functools

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.redis_kit import RedisKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_redis(check: Check, blocking: bool, redis_url: str) -> None:
    run_check(check, functools.partial(RedisKit, redis_url, blocking=blocking))
