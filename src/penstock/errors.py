"""Every error that Penstock raises.

PenstockError
├── ConfigError                 a setting, option or URL that cannot be used (also a ValueError)
│   └── Unsupported             an engine does not keep what this needs
├── TaskError                   something about a task's definition or call
│   ├── UnknownTask             no task of that name is registered
│   ├── EncodeError             an argument or result that cannot be serialized (also a TypeError)
│   └── DecodeError             bytes that are not what they should be (also a ValueError)
│       └── SignatureError      unsigned, wrongly signed, or signed for something else
├── PublishError                the task was not published
│   ├── QueueFull               the queue's bound is reached; carries retry_after
│   │   └── DeadlineUnmeetable  it would start after its deadline; carries wait
│   ├── UnknownQueue            the queue is not declared, or nothing takes the call
│   ├── MessageTooLarge         the message, or the batch, is over the limit
│   └── AlreadyQueued           a unique task of that key is there
├── BrokerError                 the engine failed
│   ├── BrokerUnavailable       it could not be reached, or not within the deadline
│   ├── AccessRefused           it does not let this user in, or do this (also a ConfigError)
│   ├── OutcomeUnknown          it may or may not have done what was asked; repeat with the same id
│   ├── StoreFull               no space left where it keeps its data
│   └── StoreError              its file or schema cannot be used
├── ResultError
│   ├── ResultTimeout           no result within the time-out (also a TimeoutError)
│   ├── ResultUnavailable       there is no result to wait for, and there will be none
│   ├── PartsLost               the next part of a stream is not kept any more; carries first
│   ├── TaskRevoked             the task was revoked
│   ├── TaskShed                the task made room for others in a full queue, and is a dead letter
│   └── RemoteError             the task failed with an error that cannot be rebuilt here
├── BlockingCallInLoop          a blocking call inside a running event loop
└── WorkerError
    ├── SoftTimeLimitExceeded   raised inside a task when its soft limit passed
    ├── TimeLimitExceeded       the task was killed at its hard limit
    └── WorkerLost              the worker died while it ran the task

Control flow, raised by tasks (no PenstockError): Retry, Snooze, Ignore, Reject.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard


class PenstockError(Exception):
    """The root of all errors of Penstock."""


class ConfigError(PenstockError, ValueError):
    """A setting, option or URL that cannot be used."""


class Unsupported(ConfigError):
    """An engine does not keep what this needs (see `Features`)."""


class TaskError(PenstockError):
    """Something about a task's definition or call."""


class UnknownTask(TaskError, LookupError):
    """No task of that name is registered."""


class EncodeError(TaskError, TypeError):
    """An argument or result that cannot be serialized."""


class DecodeError(TaskError, ValueError):
    """Bytes that are not what they should be."""


class SignatureError(DecodeError):
    """A message or result that is unsigned, wrongly signed, by a key that is not accepted, or for another task."""


class PublishError(PenstockError):
    """The task was not published."""


class QueueFull(PublishError):
    """The queue's bound is reached: nothing of this call was published (see `accepted` for earlier parts).

    `depth` and `limit` are in tasks, or in bytes when `unit` is "bytes"; `retry_after` is in seconds;
    `accepted` counts the tasks of the same `delay_many` that were published before. `why`: why a call that was to try
    again gave up.
    """

    def __init__(
        self,
        queue: str,
        depth: int,
        limit: int,
        retry_after: float,
        unit: str = "tasks",
        accepted: int = 0,
        why: str = "",
    ) -> None:
        self.queue, self.depth, self.limit = queue, depth, limit
        self.retry_after, self.unit, self.accepted, self.why = retry_after, unit, accepted, why
        super().__init__(
            f"queue {queue!r} is full: {depth:,} of {limit:,} {unit}; try again in {retry_after:.3g} s"
            + (f" ({accepted:,} tasks of this call were published)" if accepted else "")
            + (f" ({why})" if why else "")
        )

    def counted(self, accepted: int) -> QueueFull:
        """The same, for a call of which so many tasks were published before."""
        return QueueFull(self.queue, self.depth, self.limit, self.retry_after, self.unit, accepted, self.why)


class DeadlineUnmeetable(QueueFull):
    """The queue has room, but what is in it takes `wait` seconds, and the call has a `deadline` in `left` seconds, by
    which it must start. Nothing was published."""

    def __init__(
        self, queue: str, depth: int, limit: int, retry_after: float, wait: float, left: float, accepted: int = 0
    ) -> None:
        super().__init__(queue, depth, limit, retry_after, accepted=accepted)
        self.wait, self.left = wait, left
        self.args = (
            f"queue {queue!r}: a task would start in about {wait:.3g} s, behind {depth:,}, and this one must in "
            f"{max(0.0, left):.3g} s; try again in {retry_after:.3g} s"
            + (f" ({accepted:,} tasks of this call were published)" if accepted else ""),
        )

    def counted(self, accepted: int) -> DeadlineUnmeetable:
        return DeadlineUnmeetable(self.queue, self.depth, self.limit, self.retry_after, self.wait, self.left, accepted)


class UnknownQueue(PublishError, LookupError):
    """The queue is not declared, and the app does not create missing queues; or no queue takes what is published to an
    exchange, or no worker a broadcast."""


class MessageTooLarge(PublishError, ValueError):
    """A message, or a batch, is over the limit."""


class AlreadyQueued(PublishError):
    """A unique task of the same key is queued or running; `task_id` is its id where the engine knows it."""

    def __init__(self, key: str, task_id: str | None) -> None:
        self.key, self.task_id = key, task_id
        super().__init__(f"a task with the unique key {key!r} is already there" + (f": {task_id}" if task_id else ""))


class BrokerError(PenstockError):
    """The engine failed."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """The engine could not be reached, or did not answer within the deadline; nothing was done."""


class AccessRefused(BrokerError, ConfigError):
    """The engine does not let this user in, or do this, or the database or virtual host is not there; nothing was done.
    What was right yesterday may be again tomorrow: a worker goes on trying."""


class OutcomeUnknown(BrokerError):
    """The engine may or may not have done what was asked. Repeating it with the same ids is safe."""

    def __init__(self, message: str, ids: Sequence[str] = ()) -> None:
        self.ids = tuple(ids)
        super().__init__(message)


class StoreFull(BrokerError, OSError):
    """No space is left where the engine keeps its data; nothing was done."""


class StoreError(BrokerError):
    """The engine's file or schema cannot be used."""


class ResultError(PenstockError):
    """Something about a task's result."""


class ResultTimeout(ResultError, TimeoutError):
    """No result within the time-out. The task may still be running."""


class ResultUnavailable(ResultError):
    """There is no result to wait for, and there will be none."""


class PartsLost(ResultError):
    """A stream cannot go on at `offset`: of what the task has published, `first` to `end` - 1 are kept."""

    def __init__(self, offset: int, first: int, end: int) -> None:
        self.offset, self.first, self.end = offset, first, end
        super().__init__(
            f"part {offset:,} is not kept any more: of a task the newest 10,000 parts, or 4 MiB, are; go on with "
            f"stream({first}), which skips {first - offset:,}"
            if offset < first
            else f"part {offset:,} is not there, and only {end:,} were published: the task began anew (it was a dead "
            f"letter, or its result was forgotten), or the offset is another task's; read it with stream({first})"
        )


class TaskRevoked(ResultError):
    """The task was revoked (or expired) before it finished."""


class TaskShed(ResultError):
    """The task made room for others in a full queue (`Queue.overflow`), before it could start. It is a dead letter:
    whoever retries that, has it published again."""


class RemoteError(ResultError):
    """The task failed with an exception that is not rebuilt here.

    `type_name` is its dotted name, `remote_traceback` what the worker saw.
    """

    def __init__(self, type_name: str, message: str, remote_traceback: str = "") -> None:
        self.type_name, self.message, self.remote_traceback = type_name, message, remote_traceback
        super().__init__(f"{type_name}: {message}" if message else type_name)


class BlockingCallInLoop(PenstockError, RuntimeError):
    """A blocking call inside a running event loop; use the `a…` method of the same name."""


class WorkerError(PenstockError):
    """Something that the worker did to a task."""


class SoftTimeLimitExceeded(WorkerError):
    """Raised inside a task when its soft time limit passed; it may clean up and return or raise."""


class TimeLimitExceeded(WorkerError):
    """The task was killed at its hard time limit."""


class WorkerLost(WorkerError):
    """The worker died while it ran the task, `max_attempts` times; or once, with `acks_late=False`."""


class Retry(Exception):
    """Raise (or `raise self.retry(…)`) to run the task again after `countdown` seconds, or at `eta` (Unix time).

    `exc` is the error that is reported should there be no retries left.
    """

    def __init__(
        self,
        message: str = "",
        *,
        exc: BaseException | None = None,
        countdown: float | None = None,
        eta: float | None = None,
        max_retries: int | None = None,
        args: tuple[object, ...] | None = None,
        kwargs: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message or (f"{type(exc).__name__}: {exc}" if exc else "retry"))
        self.exc, self.countdown, self.eta, self.max_retries = exc, countdown, eta, max_retries
        self.new_args, self.new_kwargs = args, kwargs


class Snooze(Exception):
    """Raise (or `raise self.snooze(…)`) to run the task again after so many seconds, when it could do nothing now: a
    remote asked it to wait, or what it needs is not there yet. It spends no retry; `max_snoozes` bounds it.

    `Snooze.from_retry_after(response.headers["Retry-After"])` waits as long as a remote says.
    """

    def __init__(self, seconds: float) -> None:
        if not _is_number(seconds) or not 0 <= seconds < float("inf"):
            raise ConfigError(f"a task snoozes for at least 0 seconds, not {seconds!r}")
        super().__init__(seconds)
        self.seconds = float(seconds)

    def __str__(self) -> str:
        return f"snoozed for {self.seconds:g} s"

    @classmethod
    def from_retry_after(cls, value: str | float | None, default: float = 60.0) -> Snooze:
        """`value` is what an HTTP header `Retry-After` says: seconds, or a date. What is not there, or neither, is
        `default` seconds; a date that has passed is now."""
        seconds = seconds_of(value)
        return cls(default if seconds is None else seconds)


LONGEST_SNOOZE = 30 * 86_400.0
"""Seconds: no remote makes a task wait longer than that."""


def seconds_of(retry_after: object) -> float | None:
    """The seconds from now that a remote asks for, as a number, its text, or an HTTP date; `None` where it is none of
    them."""
    seconds = _seconds_in(retry_after.strip()) if isinstance(retry_after, str) else retry_after
    if not _is_number(seconds) or not seconds >= 0:
        return None
    return min(float(seconds), LONGEST_SNOOZE)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seconds_in(text: str) -> float | None:
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return float(text[:20])
    import time
    from email.utils import parsedate_to_datetime  # few remotes give dates

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class Ignore(Exception):
    """Raise to end the task without storing a result."""


class Replace(Exception):
    """Raise (`raise self.replace(…)`) to run another call in the place of this one."""

    def __init__(self, call: object) -> None:
        super().__init__(f"replaced by {call!r}")
        self.call = call


class Reject(Exception):
    """Raise to end the task in the dead letters, or with `requeue=True` to put it back."""

    def __init__(self, reason: str = "rejected", *, requeue: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.requeue = reason, requeue
