"""What an error means for its task: run it again, give it up, ignore it, or reject it. Decided purely, from values.

`max_retries` counts errors: the task ran and raised. `max_attempts` counts deliveries that never came back: its worker
died. `max_snoozes` counts how often it asked for more time.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from penstock.errors import ConfigError, Ignore, Reject, Replace, Retry, Snooze, seconds_of
from penstock.message import OWN_HEADERS, Message

MAX_SNOOZES = 1000
"""A task that asks for more time ever again ends at last; at a minute each, that is the better part of a day."""
SNOOZES = f"{OWN_HEADERS}snoozes"
"""Header: how often this call was snoozed."""
LARGEST_EXPONENT = 60
"""Doubling stops here, so that a task with thousands of retries does not overflow a float."""


class RetryPolicy(Struct, frozen=True):
    """When a task that raised runs again.

    `max_retries` errors are forgiven (`None`: all). An error of `autoretry_for`, and not of `dont_autoretry_for`, is
    retried by itself; others only when the task raises `Retry`. The delay is `default_delay` seconds, or with `backoff`
    (a factor in seconds; `True` is 1) factor × 2^retries, at most `backoff_max` seconds; `jitter` draws it evenly
    between 0 and that.
    Errors of `throws` are expected: they fail the task as any other, but are logged without a traceback.

    `Snooze` is forgiven `max_snoozes` times, and counted apart. An error of `autoretry_for` that says `retry_after`,
    in seconds or as the header has it, is a snooze.
    """

    max_retries: int | None = 3
    default_delay: float = 180.0
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    backoff: bool | float = False
    backoff_max: float = 600.0
    jitter: bool = True
    throws: tuple[type[BaseException], ...] = ()
    max_snoozes: int = MAX_SNOOZES

    def __post_init__(self) -> None:
        if self.max_retries is not None and (type(self.max_retries) is not int or self.max_retries < 0):
            raise ConfigError(f"max_retries must be at least 0, or None for no end, not {self.max_retries!r}")
        delays: tuple[tuple[str, object], ...] = (
            ("default_retry_delay", self.default_delay),
            ("retry_backoff", self.backoff),
            ("retry_backoff_max", self.backoff_max),
        )
        for setting, value in delays:
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"{setting} must be at least 0 seconds, not {value!r}")


class Again(Struct, frozen=True):
    """Run it again at `when` (Unix time). `message` has the new `retries`; `args`, `kwargs` replace the arguments.
    `snoozed`: it did not fail, it asked for more time."""

    when: float
    message: Message
    reason: BaseException
    args: tuple[object, ...] | None = None
    kwargs: dict[str, object] | None = None
    snoozed: bool = False


class GiveUp(Struct, frozen=True):
    """The task failed with `error`. `expected`: the task declares it in `throws`."""

    error: BaseException
    expected: bool


class Drop(Struct, frozen=True):
    """The task ended, and stores no result."""


class Refuse(Struct, frozen=True):
    """To the dead letters, or back into the queue with `requeue`."""

    reason: str
    requeue: bool


class Instead(Struct, frozen=True):
    """Another call, a signature, takes its place."""

    call: object


Decision = Again | GiveUp | Drop | Refuse | Instead


def decide(
    policy: RetryPolicy, message: Message, error: BaseException, now: float, rng: Callable[[], float]
) -> Decision:
    """What becomes of `message`, whose run raised `error` at `now` (Unix time). `rng` returns numbers in [0, 1)."""
    if isinstance(error, Retry):
        return _asked(policy, message, error, now, rng)
    if isinstance(error, Snooze):
        return _snoozed(policy, message, error, error.seconds, now)
    if isinstance(error, Ignore):
        return Drop()
    if isinstance(error, Reject):
        return Refuse(error.reason, error.requeue)
    if isinstance(error, Replace):
        return Instead(error.call)
    if isinstance(error, policy.autoretry_for) and not isinstance(error, policy.dont_autoretry_for):
        seconds = _said(error)
        if seconds is not None:
            return _snoozed(policy, message, error, seconds, now)
        if _retries_left(policy.max_retries, message.retries):
            when = now + delay(policy, message.retries, rng)
            return Again(when, _next(message, when), error)
    return GiveUp(error, isinstance(error, policy.throws))


def delay(policy: RetryPolicy, retries: int, rng: Callable[[], float]) -> float:
    """Seconds until the next run of a task that has been retried `retries` times."""
    if not policy.backoff:
        return policy.default_delay
    longest = min(policy.backoff_max, float(policy.backoff) * 2.0 ** min(retries, LARGEST_EXPONENT))
    return longest * rng() if policy.jitter else longest


def _asked(policy: RetryPolicy, message: Message, error: Retry, now: float, rng: Callable[[], float]) -> Again | GiveUp:
    limit = policy.max_retries if error.max_retries is None else error.max_retries
    reason = error.exc or error.__cause__ or error.__context__ or error
    if not _retries_left(limit, message.retries):
        return GiveUp(reason, isinstance(reason, policy.throws))
    if error.eta is not None:
        when = error.eta
    elif error.countdown is not None:
        when = now + error.countdown
    else:
        when = now + delay(policy, message.retries, rng)
    return Again(when, _next(message, when), reason, error.new_args, error.new_kwargs)


def _said(error: BaseException) -> float | None:
    """The seconds that an error says to wait, if it says any."""
    try:
        return seconds_of(getattr(error, "retry_after", None))
    except Exception:  # a property of somebody's, which failed
        return None


def snoozes(message: Message) -> int:
    """How often the call was snoozed."""
    count = (message.headers or {}).get(SNOOZES, "0")
    return int(count) if count.isdecimal() and len(count) < 10 else 0


def afresh(message: Message) -> Message:
    """The message as if it was never tried, for a dead letter that is put back, or another task in its place."""
    headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith(OWN_HEADERS)}
    return msgspec.structs.replace(message, attempts=0, retries=0, eta=None, headers=headers or None)


def _snoozed(policy: RetryPolicy, message: Message, error: BaseException, seconds: float, now: float) -> Again | GiveUp:
    reason = error.__cause__ or error.__context__ or error if isinstance(error, Snooze) else error
    count = snoozes(message) + 1
    if count > policy.max_snoozes:
        reason.add_note(f"it was snoozed {policy.max_snoozes:,} times, and wanted to be again (max_snoozes)")
        return GiveUp(reason, isinstance(reason, policy.throws))
    headers = {**(message.headers or {}), SNOOZES: str(count)}
    when = now + seconds
    return Again(when, msgspec.structs.replace(message, headers=headers, eta=when), reason, snoozed=True)


def _retries_left(limit: int | None, retries: int) -> bool:
    return limit is None or retries < limit


def _next(message: Message, when: float) -> Message:
    return msgspec.structs.replace(message, retries=message.retries + 1, eta=when)
