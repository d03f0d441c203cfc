"""Which guards are fit to be kept: one rule for those of this process and for those of hostile clients. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock.errors import ConfigError
from penstock.message import MAX_NAME, Dedup, Fence, Guard, Limit, Unique

MAX_GUARDS = 8
"""Guards of one message, of which one may be a `Limit`."""
MAX_KEY = 1_000
"""Characters of a guard's key; that of a `Limit`, which is kept as a lane is, has `MAX_NAME` bytes at most."""
FOREVER = 10 * 365 * 86_400.0
"""Seconds: the longest time to keep something, and the longest for which one message may hold up its key."""
FASTEST = 1e6
"""Units a second: beyond that, Unix time in floating point is too coarse."""
MOST = 1_000_000_000
"""Units of a burst or a cost, and tasks at a time."""


def check_guards(task: str, guards: Sequence[Guard]) -> None:
    """Raise `ConfigError` for what is not fit to be kept."""
    if len(guards) > MAX_GUARDS:
        raise ConfigError(f"task {task!r}: {len(guards)} guards; at most {MAX_GUARDS} are taken")
    limits = 0
    for guard in guards:
        match guard:
            case Unique():
                _check_unique(guard)
            case Dedup(key=key, ttl=ttl):
                _check_key(key)
                _check_ttl("a dedup key", ttl)
            case Fence(name=name):
                _check_key(name)
            case Limit():
                check_limit(guard)
                limits += 1
    if limits > 1:
        raise ConfigError(
            f"task {task!r}: {limits} limits; a message waits for one, give that both rate and concurrency"
        )


def check_limit(limit: Limit) -> None:
    """Raise `ConfigError` for numbers that limit nothing, or hold up everything."""
    if not 0 < len(limit.key.encode("utf-8", "replace")) <= MAX_NAME:
        raise ConfigError(f"the key of a limit has 1 to {MAX_NAME} bytes, not {len(limit.key):,}: {limit.key[:40]!r}")
    _check_units("the cost of a limited task", limit.cost)
    _check_units("the burst of a limit", limit.burst)
    if limit.concurrency is not None and not 1 <= limit.concurrency <= MOST:
        raise ConfigError(
            f"limit {limit.key!r}: concurrency must be between 1 and {MOST:,}, not {limit.concurrency!r}; "
            "to hand out nothing, pause the queue"
        )
    if limit.rate is not None:
        _check_rate(limit.key, limit.rate, max(limit.cost, limit.burst))


def _check_rate(key: str, rate: float, units: float) -> None:
    if not 0 < rate <= FASTEST:  # false for NaN, too
        raise ConfigError(
            f"limit {key!r}: the rate must be more than 0 and at most {FASTEST:,.0f} a second, not {rate!r}; "
            "to hand out nothing, pause the queue"
        )
    if units > rate * FOREVER:
        raise ConfigError(f"limit {key!r}: {units:g} units at {rate:g} a second take more than ten years")


def _check_units(what: str, units: float) -> None:
    if not (0 < units <= MOST and math.isfinite(units)):
        raise ConfigError(f"{what} must be more than 0 and at most {MOST:,}, not {units!r}")


def _check_unique(guard: Unique) -> None:
    _check_key(guard.key)
    if guard.ttl is not None:
        _check_ttl("a unique key", guard.ttl)
    elif guard.until == "ttl":
        raise ConfigError(f"unique key {guard.key!r}: one that is held until its ttl needs a ttl")


def _check_ttl(what: str, ttl: float) -> None:
    if not 0 <= ttl <= FOREVER:  # false for NaN, too
        raise ConfigError(f"the ttl of {what} must be between 0 and {FOREVER:g} seconds, not {ttl!r}")


def _check_key(key: str) -> None:
    if not 0 < len(key) <= MAX_KEY:
        raise ConfigError(f"a key has 1 to {MAX_KEY} characters, not {len(key):,}")
