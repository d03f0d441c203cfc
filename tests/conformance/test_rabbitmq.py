"""What RabbitMQ keeps of the promises, and that it refuses the rest, for blocking and for awaiting callers."""

import functools

import pytest

from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.rabbitmq_kit import RabbitKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_rabbitmq(check: Check, blocking: bool, rabbitmq_url: str) -> None:
    run_check(check, functools.partial(RabbitKit, rabbitmq_url, blocking=blocking))
