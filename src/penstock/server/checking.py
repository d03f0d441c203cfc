"""What a broker checks of a message before it takes it: names, numbers and sizes come from outside. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from penstock.backend import check_parts
from penstock.coordinator import WorkerInfo
from penstock.errors import ConfigError, DecodeError, MessageTooLarge
from penstock.guarding import MAX_KEY, check_guards
from penstock.message import HIGHEST, LOWEST, MAX_NAME, Message, unpack
from penstock.outcome import Outcome, Progress
from penstock.queue import check_name

MAX_MESSAGE = 8 << 20
"""Bytes of one packed message."""
MAX_CONTENT_TYPE = 100
"""Characters of the content type of a part."""
MAX_QUEUES = 1_000
"""Queues of one worker, and of one demand."""
LARGEST = (1 << 63) - 1
"""The largest number that a database holds."""
_scan = msgspec.json.Decoder(Raw).decode


def read_message(body: bytes) -> Message:
    """The message, fit to be kept. Raises `DecodeError`, `ConfigError` or `MessageTooLarge`."""
    if len(body) > MAX_MESSAGE:
        raise MessageTooLarge(f"a message of {len(body):,} bytes; at most {MAX_MESSAGE:,} are taken")
    message = unpack(body)
    check_message(message)
    return message


def check_message(message: Message) -> None:
    """Raise `DecodeError` or `ConfigError` for what is not fit to be kept."""
    if message.version < 1:
        raise DecodeError(f"not a message: version {message.version}")
    if not 0 < len(message.task.encode("utf-8", "replace")) <= MAX_NAME:
        raise ConfigError(f"a task's name has 1 to {MAX_NAME} bytes, not {len(message.task):,}")
    if message.id is not None:
        check_name("task id", message.id)
    if not LOWEST <= message.priority <= HIGHEST:
        raise ConfigError(f"priority must be between {LOWEST} and {HIGHEST}, not {message.priority!r}")
    for what, moment in (("eta", message.eta), ("expires", message.expires), ("sent", message.sent)):
        if moment is not None:
            check_finite(what, moment)
    check_guards(message.task, message.guards)


def check_route(message: Message) -> None:
    """Names that nobody has checked yet. Raises `ConfigError`."""
    check_name("queue", message.queue)
    check_name("namespace", message.namespace, empty=True)
    check_name("partition", message.partition, empty=True)


def check_outcome(outcome: Outcome) -> None:
    """Raise `ConfigError` or `MessageTooLarge` for an end that cannot be kept, or not be told."""
    if not outcome.state.terminal:
        raise ConfigError(f"an outcome has a terminal state, not {outcome.state}")
    if len(outcome.value) > MAX_MESSAGE:
        raise MessageTooLarge(f"a result of {len(outcome.value):,} bytes; at most {MAX_MESSAGE:,} are kept")
    if outcome.content_type == "json" and outcome.value:
        check_json(outcome.value)
    check_finite("the end of a task", outcome.done)
    check_finite("the time that a task took", outcome.runtime)
    check_number("the retries of a task", outcome.retries)


def check_values(values: Sequence[tuple[bytes, str]]) -> None:
    """Raise `MessageTooLarge` or `ConfigError` for parts that cannot be kept."""
    check_parts(values)
    for _, content_type in values:
        if len(content_type) > MAX_CONTENT_TYPE:
            raise ConfigError(
                f"a content type of {len(content_type):,} characters; at most {MAX_CONTENT_TYPE} are kept"
            )


def check_json(value: bytes) -> None:
    """Raise `DecodeError` for what would spoil the results beside it."""
    try:
        value.decode()
        _scan(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"a result is no JSON: {error}") from error


def check_progress(progress: Progress) -> None:
    """Raise `ConfigError` for what cannot be kept."""
    if len(progress.note) > MAX_KEY:
        raise ConfigError(f"a note of {len(progress.note):,} characters; at most {MAX_KEY:,} are taken")
    check_finite("progress", progress.done)
    if progress.total is not None:
        check_finite("progress", progress.total)


def check_worker(worker: WorkerInfo) -> None:
    """Raise `ConfigError` for a worker that cannot be listed."""
    if len(worker.queues) > MAX_QUEUES:
        raise ConfigError(f"a worker of {len(worker.queues):,} queues; at most {MAX_QUEUES:,} are taken")
    if max(map(len, (worker.name, worker.host, worker.pool))) > MAX_KEY:
        raise ConfigError(f"a worker's name, host and pool have at most {MAX_KEY:,} characters")
    check_number("a process id", worker.pid)
    check_number("slots", worker.slots)
    check_finite("the start of a worker", worker.started)


def check_number(what: str, value: int) -> None:
    if not 0 <= value <= LARGEST:
        raise ConfigError(f"{what} must be between 0 and {LARGEST}, not {value!r}")


def check_finite(what: str, value: float) -> None:
    """Raise `ConfigError` for what a database would keep as nothing at all."""
    if not math.isfinite(value):
        raise ConfigError(f"{what} must be a finite number, not {value!r}")


def check_seconds(what: str, seconds: float, most: float) -> None:
    """Raise `ConfigError` unless it is a number of seconds between 0 and `most`."""
    if not 0 <= seconds <= most:  # false for NaN, too
        raise ConfigError(f"{what} must be between 0 and {most:g} seconds, not {seconds!r}")
