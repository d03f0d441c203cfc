"""Unique tasks: which calls count as the same one, and what becomes of the second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

from msgspec import Struct

from penstock import message
from penstock.codec.values import json
from penstock.errors import ConfigError
from penstock.keys import Given, digest, short

OnConflict = Literal["skip", "raise", "replace", "cancel"]


class Unique(Struct, frozen=True):
    """At most one task with this key may wait or run.

    `key`: `True` for the task's name and all of its arguments; a template over the arguments, such as
    `"import:{user_id}"`; or a function of the arguments that returns a string. Keys of templates and functions are
    shared by all tasks that use them. The key is free again when the task starts (`until="start"`) or has ended
    ("done"), or after `ttl` seconds; with "ttl" only then.

    On conflict, "skip" returns the result of the task that holds the key, "raise" raises `AlreadyQueued`. With
    "replace" the new call takes the place of one that waits; one that runs goes on. With "cancel" that is revoked, too,
    in the middle if its pool can. A call that was replaced or cancelled ends as REVOKED. With `delay` calls wait that
    many seconds before they start, unless they say themselves when. See `singleton`, `throttle` and `debounce`.
    """

    key: Literal[True] | str | Callable[..., str] = True
    until: Literal["start", "done", "ttl"] = "done"
    ttl: float | None = None
    on_conflict: OnConflict = "skip"
    delay: float | None = None

    def __post_init__(self) -> None:
        if not self.key or not (self.key is True or isinstance(self.key, str) or callable(self.key)):
            raise ConfigError(f"unique key must be True, a template, or a function of the arguments, not {self.key!r}")
        if self.until not in ("start", "done", "ttl"):
            raise ConfigError(f"unique until must be 'start', 'done' or 'ttl', not {self.until!r}")
        if self.on_conflict not in ("skip", "raise", "replace", "cancel"):
            raise ConfigError(
                f"unique on_conflict must be 'skip', 'raise', 'replace' or 'cancel', not {self.on_conflict!r}"
            )
        for name, seconds in (("ttl", self.ttl), ("delay", self.delay)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ConfigError(f"unique {name} must be more than 0 seconds, not {seconds!r}")
        if self.until == "ttl" and self.ttl is None:
            raise ConfigError("unique until='ttl' needs a ttl, in seconds")

    def guard(self, given: Given) -> message.Unique:
        """The guard of one call. Raises `ConfigError` when the key cannot be made of the arguments."""
        if self.key is True:
            same = (given.args, given.kwargs) if given.arguments is None else given.named()
            key = short(f"{given.task}:{digest(json.canonical(same))}")
        else:
            key = cast(str, given.key("unique key", self.key))
            if key is None:
                raise ConfigError(
                    f"{given.task}: the unique key function returned None; it must return a non-empty string"
                )
        return message.Unique(key, self.until, self.ttl, self.on_conflict)


def singleton(key: Literal[True] | str | Callable[..., str] = True, on_conflict: OnConflict = "skip") -> Unique:
    """One at a time: while a call waits or runs, the next is skipped, or raises, or replaces or cancels it."""
    return Unique(key, "done", None, on_conflict)


def throttle(seconds: float, key: Literal[True] | str | Callable[..., str] = True) -> Unique:
    """At most one call in so many seconds: the first starts at once, later ones are skipped, and return its result."""
    return Unique(key, "ttl", seconds, "skip")


def debounce(seconds: float, key: Literal[True] | str | Callable[..., str] = True) -> Unique:
    """Start when there were no further calls for so many seconds, with the arguments of the last; one that runs
    already is left alone. Give a `key` that does not have all arguments in it."""
    return Unique(key, "start", None, "replace", seconds)


def unique_of(given: Unique | str | bool | Callable[..., str] | None) -> Unique | None:
    """What the option `unique=` means. Raises `ConfigError`."""
    if isinstance(given, Unique):
        return given
    if given is None or given is False:
        return None
    return Unique(given)
