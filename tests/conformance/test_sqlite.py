"""The embedded engine keeps every promise, for blocking and for awaiting callers."""

import functools
from pathlib import Path

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.sqlite_kit import SqliteKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_sqlite(check: Check, blocking: bool, tmp_path: Path) -> None:
    run_check(check, functools.partial(SqliteKit, tmp_path / "queue.db", blocking=blocking))
