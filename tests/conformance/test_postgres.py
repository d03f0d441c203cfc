"""The PostgreSQL engine keeps every promise, for blocking and for awaiting callers."""

import functools

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.postgres_kit import PostgresKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_postgres(check: Check, blocking: bool, postgres_url: str) -> None:
    run_check(check, functools.partial(PostgresKit, postgres_url, blocking=blocking))
