"""Limits of tasks: how many may start in a time, and run at a time, over all workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from penstock import message
from penstock.errors import ConfigError
from penstock.guarding import check_limit
from penstock.keys import Given, KeyLike

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
Cost = float | Callable[..., float]


class TaskLimit(Struct, frozen=True):
    """What a task's options say of its limit."""

    rate: float | None
    burst: float
    concurrency: int | None
    key: KeyLike | None
    cost: Cost

    def guard(self, given: Given, cost: float | None) -> message.Limit | None:
        """The guard of one call, which may have a `cost` of its own; `None` if it is not limited. Raises
        `ConfigError` when the key or the cost cannot be made of the arguments."""
        key = given.task if self.key is None else given.key("limit_key", self.key)
        if key is None:
            return None
        if cost is None:
            cost = self.cost if isinstance(self.cost, (int, float)) else _number(given, self.cost)
        return message.Limit(key, self.rate, self.burst, self.concurrency, cost)


def limit_of(
    rate: str | float | None, burst: float, concurrency: int | None, key: KeyLike | None, cost: Cost
) -> TaskLimit | None:
    """What the options of a task come to; `None` if they limit nothing. Raises `ConfigError`."""
    limit = TaskLimit(rate_of(rate), burst, concurrency, key, cost)
    check_limit(message.Limit("key", limit.rate, burst, concurrency, 1.0 if callable(cost) else cost))
    return None if limit.rate is None and concurrency is None else limit


def rate_of(given: object) -> float | None:
    """Units a second. `"10/s"`, `"100/m"`, `"1000/h"`, a number a second, or its text; `None` and 0 are no limit.
    Raises `ConfigError`."""
    if given is None:
        return None
    if isinstance(given, str):
        count, _, unit = given.partition("/")
        try:
            rate = float(count) / UNITS[unit.strip() or "s"]
        except (ValueError, KeyError):
            raise ConfigError(
                f"rate_limit must be a number a second, or text such as '10/s', '100/m' or '1000/h', not {given!r}"
            ) from None
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        rate = float(given)
    else:
        raise ConfigError(f"rate_limit must be a number a second, or text such as '10/s', not {given!r}")
    if not rate:
        return None
    check_limit(message.Limit("rate_limit", rate))
    return rate


def check_cost(cost: object) -> None:
    """Raise `ConfigError` for what is no number of units."""
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        raise ConfigError(f"cost must be a number of units, not {cost!r}")
    check_limit(message.Limit("cost", cost=cost))


def _number(given: Given, function: Callable[..., Any]) -> float:
    cost = given.ask("cost", function)
    if isinstance(cost, bool) or not isinstance(cost, (int, float)):
        raise ConfigError(f"{given.task}: the cost function returned {cost!r}; it must return a number of units")
    return cost
