"""The suite's checks as parameters: one test id per check, one per mode."""

import pytest

from penstock.testing.conformance import AREAS

CASES = [
    pytest.param(check, id=f"{area}-{check.__name__.removeprefix('check_')}")
    for area, checks in AREAS.items()
    for check in checks
]
MODES = [pytest.param(True, id="blocking"), pytest.param(False, id="awaiting")]
