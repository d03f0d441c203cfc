"""What becomes of a call whose queue is full, as its caller wants it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from penstock.errors import ConfigError

LONGEST = 86_400.0
"""Seconds that a call may go on trying."""


class Backoff(Struct, frozen=True):
    """Try again when a queue is full: after what `QueueFull.retry_after` says at least, and up to `base` seconds more,
    twice as many after each try, `cap` at most (exponential, with full jitter); for `deadline` seconds in all, then the
    last `QueueFull` is raised. What would come after that is not waited for. Raises `ConfigError` for a bad number."""

    base: float = 0.1
    cap: float = 10.0
    deadline: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value <= LONGEST:
                raise ConfigError(f"Backoff: {name} must be seconds above 0, {LONGEST:,.0f} at most, not {value!r}")

    def pause(self, tries: int, retry_after: float, spent: float, chance: float) -> float | None:
        """Seconds until the next try, after so many and so many seconds; `chance` is from 0 to 1. `None`: that would be
        too late."""
        pause = retry_after + chance * min(self.cap, self.base * 2.0 ** min(tries - 1, 60))
        return pause if spent + pause <= self.deadline else None


RUN_INLINE: Literal["run-inline"] = "run-inline"
OnFull = Backoff | Literal["raise", "run-inline"]


def check_on_full(what: str, value: object) -> None:
    """Raise `ConfigError` for what is none."""
    if not isinstance(value, Backoff) and value not in ("raise", RUN_INLINE):
        raise ConfigError(f"{what} must be 'raise', 'run-inline' or a Backoff(…), not {value!r}")


def only_single(what: str, said: Mapping[str, object]) -> None:
    """For those who publish many calls, or later, and wait for room by themselves: raise `ConfigError` for what only a
    single call can have."""
    for option in ("on_full", "deadline"):
        if said.get(option) is not None:
            raise ConfigError(f"{what}: {option} is for single calls, that are made at once: leave it out")
