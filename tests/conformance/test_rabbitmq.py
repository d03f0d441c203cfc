"""What RabbitMQ keeps of the promises, and that it refuses the rest, for blocking and for awaiting callers."""

import functools

import pytest

from penstock.testing.conformance import AREAS, Check, run_check
from tests.conformance.cases import CASES, MODES
from tests.conformance.rabbitmq_kit import RabbitKit, ReplyKit


@pytest.mark.parametrize("blocking", MODES)
@pytest.mark.parametrize("check", CASES)
def test_rabbitmq(check: Check, blocking: bool, rabbitmq_url: str) -> None:
    run_check(check, functools.partial(RabbitKit, rabbitmq_url, blocking=blocking))


ELSEWHERE = {
    "check_stored_once": "the asker keeps the first of two, and tells its sender nothing",
    "check_two_outcomes_of_one_task_together": "the same",
    "check_told_by_another_process": "a result goes to the process that asked, and to no other",
    "check_progress_lasts_while_it_runs": "progress is not told",
    "check_a_task_that_was_acknowledged_may_be_tried_again": "an id that somebody chose says not who asked",
}
"""What results over RabbitMQ do not keep: see `tests/unit/engines/test_rabbitmq_replies.py` for what they do."""


@pytest.mark.parametrize(
    "check",
    [check for area in ("step", "effects", "result") for check in AREAS[area] if check.__name__ not in ELSEWHERE],
)
def test_results_over_rabbitmq(check: Check, rabbitmq_url: str) -> None:
    run_check(check, functools.partial(ReplyKit, rabbitmq_url, blocking=True))
