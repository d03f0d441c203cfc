"""The options of a task and of one call: their names, defaults and rules.

Each set is there twice, and a test holds the two together: a `TypedDict`, which type checkers read at the call, and a
frozen struct, which the code reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from msgspec import Struct

from penstock.durations import seconds
from penstock.errors import ConfigError
from penstock.keys import KeyLike, check_key
from penstock.limit import Cost, TaskLimit, check_cost, limit_of
from penstock.message import HIGHEST, LOWEST, OWN_HEADERS
from penstock.queue import check_name
from penstock.retry import MAX_SNOOZES, RetryPolicy
from penstock.unique import Unique

UniqueLike = Unique | str | bool | Callable[..., str]
"""`True` is `Unique()`; a string or function is `Unique(key=…)`; `False` is none."""

Errors = tuple[type[BaseException], ...]

DEFAULT_RETRY_DELAY = 10.0
"""Seconds before a retry without back-off. Celery's 180 makes a short outage a long one; `retry_backoff` is better."""


class TaskSettings(TypedDict, total=False):
    """What `@app.task(…)` takes; see `TaskOptions`."""

    name: str
    base: type[Any]
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: Errors
    dont_autoretry_for: Errors
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    max_attempts: int
    ignore_result: bool | None
    acks_late: bool
    time_limit: float | None
    soft_time_limit: float | None
    expected_time: float | str | None
    priority: int | None
    queue: str | None
    expires: float | None
    track_started: bool
    serializer: str | None
    compression: str | None
    unique: UniqueLike
    rate_limit: str | float | None
    rate_burst: float
    concurrency_limit: int | None
    limit_key: KeyLike | None
    cost: Cost
    partition: KeyLike | None
    max_snoozes: int
    throws: Errors


class TaskOptions(Struct, frozen=True, kw_only=True):
    """The options of a task. Times in seconds; `None` leaves it to the app's settings.

    `max_retries` counts errors, `max_attempts` deliveries that never came back. `acks_late=False`: at most once.
    `expires` is counted from the call. `throws` are errors that are expected of it.
    `expected_time`, in seconds or as text ("2s"), ends nothing: a task that takes longer raises an alarm.
    `rate_limit` ("10/s", "100/m") and `concurrency_limit` hold for all calls with the same `limit_key`, over all
    workers; that is the task's name, unless it is a template or function. `cost` is what a call takes of the rate.
    `partition` is a template or function, too: see `CallOptions`. `max_snoozes` bounds `Snooze`.
    """

    max_retries: int | None = 3
    default_retry_delay: float = DEFAULT_RETRY_DELAY
    autoretry_for: Errors = ()
    dont_autoretry_for: Errors = ()
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    max_attempts: int = 3
    ignore_result: bool | None = None
    acks_late: bool = True
    time_limit: float | None = None
    soft_time_limit: float | None = None
    expected_time: float | str | None = None
    priority: int | None = None
    queue: str | None = None
    expires: float | None = None
    track_started: bool = False
    serializer: str | None = None
    compression: str | None = None
    unique: UniqueLike = False
    rate_limit: str | float | None = None
    rate_burst: float = 1.0
    concurrency_limit: int | None = None
    limit_key: KeyLike | None = None
    cost: Cost = 1.0
    partition: KeyLike | None = None
    max_snoozes: int = MAX_SNOOZES
    throws: Errors = ()

    def __post_init__(self) -> None:
        check_errors("autoretry_for", self.autoretry_for)
        check_errors("dont_autoretry_for", self.dont_autoretry_for)
        check_errors("throws", self.throws)
        check_limits(self.time_limit, self.soft_time_limit)
        if self.expected_time is not None:
            seconds("expected_time", self.expected_time)
        check_priority(self.priority)
        if self.queue is not None:
            check_name("queue", self.queue)
        if self.expires is not None:
            check_seconds("expires", self.expires)
        check_count("max_attempts", self.max_attempts)
        check_count("max_snoozes", self.max_snoozes)
        for option, key in (("limit_key", self.limit_key), ("partition", self.partition)):
            if key is not None:
                check_key(option, key)
        self._check_limit()

    def _check_limit(self) -> None:
        if not callable(self.cost):
            check_cost(self.cost)
        if self.concurrency_limit is not None:
            check_count("concurrency_limit", self.concurrency_limit)
        self.limit()

    @property
    def expected(self) -> float | None:
        """`expected_time` in seconds."""
        return None if self.expected_time is None else seconds("expected_time", self.expected_time)

    def limit(self) -> TaskLimit | None:
        """What limits this task. Raises `ConfigError`."""
        return limit_of(self.rate_limit, self.rate_burst, self.concurrency_limit, self.limit_key, self.cost)

    def policy(self) -> RetryPolicy:
        """Raises `ConfigError` for delays and counts below 0."""
        return RetryPolicy(
            max_retries=self.max_retries,
            default_delay=self.default_retry_delay,
            autoretry_for=self.autoretry_for,
            dont_autoretry_for=self.dont_autoretry_for,
            backoff=self.retry_backoff,
            backoff_max=self.retry_backoff_max,
            jitter=self.retry_jitter,
            throws=self.throws,
            max_snoozes=self.max_snoozes,
        )


class CallSettings(TypedDict, total=False):
    """What `apply_async(args, kwargs, …)` takes besides the arguments; see `CallOptions`."""

    countdown: float | None
    eta: datetime | float | None
    expires: datetime | float | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    partition: str
    task_id: str | None
    headers: Mapping[str, str] | None
    ignore_result: bool | None
    time_limit: float | None
    soft_time_limit: float | None
    serializer: str | None
    compression: str | None
    unique: UniqueLike | None
    cost: float | None


class CallOptions(Struct, frozen=True, kw_only=True):
    """The options of one call; `None` leaves it to the task.

    `countdown` is in seconds from now, `eta` an aware `datetime` or Unix time; `expires` seconds from now, or an aware
    `datetime`. `partition` is the key for fairness within the queue, `cost` what the call takes of its task's rate.
    `exchange` and `routing_key` may name several queues: see `penstock.exchanges`.
    """

    countdown: float | None = None
    eta: datetime | float | None = None
    expires: datetime | float | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    partition: str = ""
    task_id: str | None = None
    headers: Mapping[str, str] | None = None
    ignore_result: bool | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    serializer: str | None = None
    compression: str | None = None
    unique: UniqueLike | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        check_limits(self.time_limit, self.soft_time_limit)
        check_priority(self.priority)
        if self.queue is not None:
            check_name("queue", self.queue)
            if self.exchange is not None:
                raise ConfigError("give queue, or exchange and routing_key, not both")
        if self.exchange is not None:
            check_name("exchange", self.exchange)
        elif self.routing_key is not None:
            raise ConfigError(f"routing_key={self.routing_key!r} without an exchange goes nowhere: give queue, or both")
        check_name("routing key", self.routing_key or "", empty=True)
        if self.task_id is not None:
            check_name("task id", self.task_id)
        check_name("partition", self.partition, empty=True)
        check_headers(self.headers or {})
        if self.cost is not None:
            check_cost(self.cost)

    def start(self, now: float) -> float | None:
        """Unix time at which the task may run. Raises `ConfigError`."""
        if self.countdown is not None:
            if self.eta is not None:
                raise ConfigError("give countdown or eta, not both")
            check_seconds("countdown", self.countdown)
            return now + self.countdown if self.countdown else None
        return None if self.eta is None else unix_time("eta", self.eta)

    def end(self, now: float, default: float | None) -> float | None:
        """Unix time after which the task must not start; `default` in seconds. Raises `ConfigError`."""
        expires = default if self.expires is None else self.expires
        if expires is None:
            return None
        if isinstance(expires, datetime):
            return unix_time("expires", expires)
        if not expires or not _is_seconds(expires):
            raise ConfigError(f"expires must be more than 0 seconds, or an aware datetime, not {expires!r}")
        return now + expires


S = TypeVar("S", TaskOptions, CallOptions)


def read_options(kind: type[S], given: Mapping[str, Any]) -> S:
    """The options `given` by name. Raises `ConfigError` for an unknown name ("did you mean") or a bad value."""
    known = kind.__struct_fields__
    for name in given:
        if name == "connection":
            raise ConfigError("a connection is not part of a call: give it to apply_async, send_task or app.batch")
        if name not in known:
            from penstock import celery_options  # only on the way to an error

            say = celery_options.unknown_task_option if kind is TaskOptions else celery_options.unknown_call_option
            raise ConfigError(say(name, known))
    return kind(**given)


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Without the options that are `None` to mean the app's setting; for `max_retries` None means no end."""
    return {name: value for name, value in options.items() if value is not None or name == "max_retries"}


def check_options(where: str, kind: type[S], said: Mapping[str, Any]) -> None:
    """`read_options` for what a setting says of tasks: errors begin with `where`."""
    try:
        read_options(kind, said)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error


def unix_time(what: str, value: datetime | float) -> float:
    """Raises `ConfigError` for a date without a timezone: it would mean another moment on another machine."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ConfigError(f"{what}={value!r} has no timezone: give it one, such as datetime.now(UTC) has")
        return value.timestamp()
    if not _is_seconds(value):
        raise ConfigError(f"{what} must be an aware datetime, or Unix time in seconds, not {value!r}")
    return float(value)


def check_errors(option: str, kinds: object) -> None:
    if not isinstance(kinds, tuple) or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
        raise ConfigError(f"{option} must be a tuple of exception classes, such as (OSError,), not {kinds!r}")


def check_seconds(option: str, value: object) -> None:
    if not _is_seconds(value):
        raise ConfigError(f"{option} must be at least 0 seconds, not {value!r}")


def check_count(option: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigError(f"{option} must be a whole number of at least 1, not {value!r}")


def check_headers(headers: Mapping[Any, Any]) -> None:
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"headers map strings to strings; {name!r} is {type(value).__name__}")
        if name.startswith(OWN_HEADERS):
            raise ConfigError(f"header {name!r}: names that begin with {OWN_HEADERS!r} are Penstock's own")


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def check_limits(hard: float | None, soft: float | None) -> None:
    for option, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is not None and (not value or not _is_seconds(value)):
            raise ConfigError(f"{option} must be more than 0 seconds, not {value!r}")
    if hard is not None and soft is not None and soft >= hard:
        raise ConfigError(f"soft_time_limit ({soft:g} s) must be less than time_limit ({hard:g} s)")


def check_priority(priority: int | None) -> None:
    if priority is not None and (type(priority) is not int or not LOWEST <= priority <= HIGHEST):
        raise ConfigError(f"priority must be a whole number between {LOWEST} and {HIGHEST} (first), not {priority!r}")


NO_OPTIONS = CallOptions()
