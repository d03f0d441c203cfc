"""What an error means for its task."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError, Ignore, Reject, Retry
from penstock.message import Message
from penstock.retry import Again, Drop, GiveUp, Refuse, RetryPolicy, decide, delay

NOW = 1_000.0


def half() -> float:
    return 0.5


def message(retries: int = 0) -> Message:
    return Message(1, "t", b"[]", id="a", retries=retries)


def test_an_error_that_is_not_listed_is_final() -> None:
    error = ValueError("x")
    assert decide(RetryPolicy(), message(), error, NOW, half) == GiveUp(error, False)


def test_a_listed_error_is_retried_until_the_retries_are_used_up() -> None:
    policy = RetryPolicy(max_retries=2, autoretry_for=(OSError,), default_delay=7)
    error = FileNotFoundError("x")
    again = decide(policy, message(retries=1), error, NOW, half)
    assert isinstance(again, Again)
    assert (again.when, again.message.retries, again.message.eta, again.message.id) == (NOW + 7, 2, NOW + 7, "a")
    assert decide(policy, message(retries=2), error, NOW, half) == GiveUp(error, False)


def test_the_message_that_was_delivered_is_not_changed() -> None:
    original = message()
    decide(RetryPolicy(autoretry_for=(Exception,)), original, ValueError(), NOW, half)
    assert (original.retries, original.eta) == (0, None)


def test_an_exempted_error_is_final() -> None:
    policy = RetryPolicy(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,))
    assert isinstance(decide(policy, message(), FileNotFoundError(), NOW, half), GiveUp)
    assert isinstance(decide(policy, message(), PermissionError(), NOW, half), Again)


def test_no_limit_retries_for_ever() -> None:
    policy = RetryPolicy(max_retries=None, autoretry_for=(OSError,), backoff=True, jitter=False)
    again = decide(policy, message(retries=100_000), OSError(), NOW, half)
    assert isinstance(again, Again)
    assert again.when == NOW + policy.backoff_max


@pytest.mark.parametrize(
    ("asked", "when"),
    [(Retry(countdown=3), NOW + 3), (Retry(eta=5_000.0), 5_000.0), (Retry(), NOW + 180), (Retry(countdown=0), NOW)],
)
def test_the_task_asks_for_a_retry(asked: Retry, when: float) -> None:
    again = decide(RetryPolicy(), message(), asked, NOW, half)
    assert isinstance(again, Again)
    assert again.when == when


def test_the_task_may_override_the_number_of_retries() -> None:
    assert isinstance(decide(RetryPolicy(max_retries=1), message(1), Retry(max_retries=2), NOW, half), Again)
    assert isinstance(decide(RetryPolicy(max_retries=5), message(1), Retry(max_retries=1), NOW, half), GiveUp)


def test_without_retries_left_the_cause_is_the_error() -> None:
    cause = KeyError("k")
    assert decide(RetryPolicy(max_retries=0), message(), Retry(exc=cause), NOW, half) == GiveUp(cause, False)
    bare = Retry()
    bare.__context__ = cause  # as `raise Retry` inside `except KeyError`
    assert decide(RetryPolicy(max_retries=0), message(), bare, NOW, half) == GiveUp(cause, False)


def test_new_arguments_are_handed_on() -> None:
    again = decide(RetryPolicy(), message(), Retry(args=(1,), kwargs={"k": 2}), NOW, half)
    assert isinstance(again, Again)
    assert (again.args, again.kwargs) == ((1,), {"k": 2})


def test_expected_errors_are_marked() -> None:
    assert decide(RetryPolicy(throws=(KeyError,)), message(), KeyError(), NOW, half).expected  # type: ignore[union-attr]  # GiveUp


def test_ignore_and_reject() -> None:
    assert decide(RetryPolicy(), message(), Ignore(), NOW, half) == Drop()
    assert decide(RetryPolicy(), message(), Reject("bad", requeue=True), NOW, half) == Refuse("bad", True)


def test_delays_double_up_to_the_maximum() -> None:
    policy = RetryPolicy(backoff=2.0, backoff_max=10, jitter=False)
    assert [delay(policy, n, half) for n in range(5)] == [2, 4, 8, 10, 10]
    assert delay(RetryPolicy(backoff=True), 3, half) == 4.0


@pytest.mark.parametrize(
    "bad",
    [
        {"max_retries": -1},
        {"max_retries": "3"},
        {"default_delay": -1},
        {"backoff_max": float("nan")},
        {"backoff": "fast"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must be at least 0"):
        RetryPolicy(**bad)  # type: ignore[arg-type]  # the point of the test
