"""Spans of time as people write them."""

from __future__ import annotations

from penstock.errors import ConfigError

LONGEST = 366 * 86_400.0
"""Seconds. What is longer is a mistake of units, and would not be bounded."""
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(what: str, given: object) -> float:
    """A number of seconds, or text such as "40ms", "2s" or "5m". `what` is for the error. Raises `ConfigError` unless
    it is above 0, and a year at most."""
    value = given if isinstance(given, int | float) and not isinstance(given, bool) else _parsed(given)
    if value is None or not 0 < value <= LONGEST:
        raise ConfigError(
            f"{what} must be seconds above 0 and up to a year, or text such as '40ms', '2s' or '5m', not {given!r}"
        )
    return float(value)


def _parsed(given: object) -> float | None:
    if not isinstance(given, str):
        return None
    number = given.strip().rstrip("usmhd")
    unit = given.strip()[len(number) :] or "s"
    try:
        return float(number) * UNITS[unit]
    except (ValueError, KeyError):
        return None
