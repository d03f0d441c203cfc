"""The patterns of permissions: regular expressions that cannot be made to run for long."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from penstock.errors import ConfigError
from penstock.message import MAX_NAME

MAX_PATTERN = 200
"""Characters of a pattern."""
MAX_WAYS = (MAX_NAME + 1) ** 3
"""Ways to try one name: as many as three stars have, some milliseconds at the very worst."""


def check_pattern(pattern: object) -> None:
    """Raise `ConfigError` unless `pattern` is a regular expression, short, and quick on every name.

    Python's matcher goes back and tries again, so that `(a+)+b` takes years for a name of forty letters, and would stop
    the broker for everybody.
    """
    if not isinstance(pattern, str):
        raise ConfigError(f"a pattern must be a string, not {pattern!r}")
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(
            f"pattern {pattern[:40]!r}… is over {MAX_PATTERN} characters; give shorter ones for fewer names"
        )
    try:
        re.compile(pattern)
        ways = _ways(re._parser.parse(pattern))  # type: ignore[attr-defined]  # what it read is told nowhere else
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"pattern {pattern!r} is no regular expression: {error}") from error
    except _Refused as error:
        raise ConfigError(f"pattern {pattern!r} has {error}, which may take very long: write it without") from error
    if ways > MAX_WAYS:
        raise ConfigError(
            f"pattern {pattern!r} has too many ways to match: use at most three of * and +, and none inside another"
        )


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` matches the whole of `name`."""
    return re.fullmatch(pattern, name) is not None


class _Refused(Exception):
    """A part of the syntax whose cost is not bounded by counting."""


def _ways(parts: Iterable[tuple[Any, Any]]) -> int:
    """How many ways a matcher can go through `parts`, at most, in a name of `MAX_NAME` characters."""
    ways = 1
    for kind, value in parts:
        ways *= _ways_of(str(kind), value)
        if ways > MAX_WAYS:
            return ways
    return ways


def _ways_of(kind: str, value: Any) -> int:
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
        return 1
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, body = value
        times = min(int(most), MAX_NAME)
        ways: int = _ways(body) ** times
        return max(1, times - int(least) + 1) * ways
    if kind == "SUBPATTERN":
        return _ways(value[-1])
    if kind == "ATOMIC_GROUP":
        return _ways(value)
    if kind == "BRANCH":
        return sum(_ways(branch) for branch in value[1])
    raise _Refused({"GROUPREF": "a back-reference"}.get(kind, "a look-around or a condition"))
