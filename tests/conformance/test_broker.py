"""`penstock broker` keeps every promise of the embedded engine, for blocking and for awaiting callers."""

import functools
from pathlib import Path

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.broker_kit import BrokerKit
from tests.conformance.cases import CASES, MODES
from tests.servers import Server


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_broker(check: Check, blocking: bool, broker: Server) -> None:
    data = Path(broker.log).parent / "data"
    run_check(check, functools.partial(BrokerKit, broker.url, data, blocking=blocking))
