"""What a broker checks of a message before it takes it: names, numbers and sizes come from outside. Pure."""

from __future__ import annotations

import math

from penstock.errors import ConfigError, DecodeError, MessageTooLarge
from penstock.message import HIGHEST, LOWEST, MAX_NAME, Dedup, Fence, Message, Unique, unpack
from penstock.queue import check_name

MAX_MESSAGE = 8 << 20
"""Bytes of one packed message."""
MAX_KEY = 1_000
"""Characters of a guard's key."""
MAX_GUARDS = 8
FOREVER = 10 * 365 * 86_400.0
"""Seconds: the longest time to keep something."""


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
        if moment is not None and not math.isfinite(moment):
            raise ConfigError(f"{what} must be a finite time, not {moment!r}")
    _check_guards(message)


def check_route(message: Message) -> None:
    """Names that nobody has checked yet. Raises `ConfigError`."""
    check_name("queue", message.queue)
    check_name("namespace", message.namespace, empty=True)
    check_name("partition", message.partition, empty=True)


def _check_guards(message: Message) -> None:
    if len(message.guards) > MAX_GUARDS:
        raise ConfigError(f"task {message.task!r}: {len(message.guards)} guards; at most {MAX_GUARDS} are taken")
    for guard in message.guards:
        match guard:
            case Unique(key=key, ttl=ttl):
                _check_key(key)
                if ttl is not None:
                    check_seconds("the ttl of a unique key", ttl, FOREVER)
            case Dedup(key=key, ttl=ttl):
                _check_key(key)
                check_seconds("the ttl of a dedup key", ttl, FOREVER)
            case Fence(name=name):
                _check_key(name)


def _check_key(key: str) -> None:
    if not 0 < len(key) <= MAX_KEY:
        raise ConfigError(f"a key has 1 to {MAX_KEY} characters, not {len(key):,}")


def check_seconds(what: str, seconds: float, most: float) -> None:
    """Raise `ConfigError` unless it is a number of seconds between 0 and `most`."""
    if not 0 <= seconds <= most:  # false for NaN, too
        raise ConfigError(f"{what} must be between 0 and {most:g} seconds, not {seconds!r}")
