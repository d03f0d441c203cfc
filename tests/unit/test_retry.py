"""What an error means for its task."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from penstock.errors import LONGEST_SNOOZE, ConfigError, Ignore, Reject, Retry, Snooze
from penstock.message import Message
from penstock.retry import SNOOZES, Again, Drop, GiveUp, Refuse, RetryPolicy, decide, delay, snoozes

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


# Snoozes.


class Busy(Exception):
    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


def test_a_snooze_spends_no_retry_and_is_counted_apart() -> None:
    policy = RetryPolicy(max_retries=0)
    first = decide(policy, message(), Snooze(7), NOW, half)
    assert isinstance(first, Again)
    assert (first.when, first.snoozed, first.message.retries, first.message.eta) == (NOW + 7, True, 0, NOW + 7)
    assert snoozes(first.message) == 1
    second = decide(policy, first.message, Snooze(0), NOW, half)
    assert isinstance(second, Again)
    assert snoozes(second.message) == 2


def test_a_task_that_snoozes_for_ever_fails_with_what_it_waited_for() -> None:
    policy = RetryPolicy(max_snoozes=2)
    again = message()
    for _ in range(2):
        decision = decide(policy, again, Snooze(1), NOW, half)
        assert isinstance(decision, Again)
        again = decision.message
    why = OSError("429")
    last = Snooze(1)
    last.__cause__ = why
    assert decide(policy, again, last, NOW, half) == GiveUp(why, False)
    assert why.__notes__ == ["it was snoozed 2 times, and wanted to be again (max_snoozes)"]


def test_an_error_that_says_when_is_a_snooze_if_it_is_retried_at_all() -> None:
    policy = RetryPolicy(max_retries=0, autoretry_for=(Busy,))
    decision = decide(policy, message(), Busy("7"), NOW, half)
    assert isinstance(decision, Again)
    assert (decision.when, decision.snoozed, decision.message.retries) == (NOW + 7, True, 0)
    assert isinstance(decide(policy, message(), Busy(None), NOW, half), GiveUp), "it says nothing: an error as any"
    assert isinstance(decide(RetryPolicy(), message(), Busy(7), NOW, half), GiveUp)


def test_an_error_that_cannot_say_when_is_as_any_other() -> None:
    class Odd(Exception):
        @property
        def retry_after(self) -> float:
            raise RuntimeError

    decision = decide(RetryPolicy(autoretry_for=(Odd,)), message(), Odd(), NOW, half)
    assert isinstance(decision, Again)
    assert not decision.snoozed


@pytest.mark.parametrize("headers", [None, {SNOOZES: "x"}, {SNOOZES: "-1"}, {SNOOZES: "9" * 30}])
def test_a_count_that_is_none_is_nothing(headers: dict[str, str] | None) -> None:
    assert snoozes(Message(1, "t", b"[]", headers=headers)) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        (3, 3.0),
        ("0", 0.0),
        ("soon", 60.0),
        ("", 60.0),
        (None, 60.0),
        (-1, 60.0),
        (float("nan"), 60.0),
        ("9" * 400, LONGEST_SNOOZE),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 60.0),
    ],
)
def test_what_a_remote_says(value: Any, seconds: float) -> None:
    assert Snooze.from_retry_after(value).seconds == seconds


def test_a_date_is_counted_from_now() -> None:
    date = formatdate(time.time() + 90, usegmt=True)
    assert 85 < Snooze.from_retry_after(date).seconds <= 90


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "7", True, None])
def test_no_time_to_snooze(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="snoozes for at least 0 seconds"):
        Snooze(seconds)
