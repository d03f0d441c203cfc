"""Unique tasks: which calls count as the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

from penstock import message
from penstock.codec import Arguments
from penstock.codec.values import json
from penstock.errors import ConfigError

MAX_KEY = 200
"""Bytes of a unique key; a longer one is replaced by its digest."""


class Unique(Struct, frozen=True):
    """At most one task with this key may wait or run.

    `key`: `True` for the task's name and all of its arguments; a template over the arguments, such as
    `"import:{user_id}"`; or a function of the arguments that returns a string. Keys of templates and functions are
    shared by all tasks that use them. The key is free again when the task starts (`until="start"`) or has ended
    ("done"), or after `ttl` seconds. On conflict, "skip" returns the result of the task that holds the key, "raise"
    raises `AlreadyQueued`.
    """

    key: Literal[True] | str | Callable[..., str] = True
    until: Literal["start", "done"] = "done"
    ttl: float | None = None
    on_conflict: Literal["skip", "raise"] = "skip"

    def __post_init__(self) -> None:
        if not self.key or not (self.key is True or isinstance(self.key, str) or callable(self.key)):
            raise ConfigError(f"unique key must be True, a template, or a function of the arguments, not {self.key!r}")
        if self.until not in ("start", "done"):
            raise ConfigError(f"unique until must be 'start' or 'done', not {self.until!r}")
        if self.on_conflict not in ("skip", "raise"):
            raise ConfigError(f"unique on_conflict must be 'skip' or 'raise', not {self.on_conflict!r}")
        if self.ttl is not None and not self.ttl > 0:
            raise ConfigError(f"unique ttl must be more than 0 seconds, not {self.ttl!r}")

    def guard(
        self, task: str, arguments: Arguments | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> message.Unique:
        """The guard of one call. `arguments` is `None` for a task that this process does not know.

        Raises `ConfigError` when the key cannot be made of the arguments.
        """
        if callable(self.key):
            key = self.key(*args, **kwargs)
            if type(key) is not str or not key:
                raise ConfigError(
                    f"{task}: the unique key function returned {key!r}; it must return a non-empty string"
                )
        elif self.key is True:
            given = (args, kwargs) if arguments is None else arguments.by_name(args, kwargs)
            key = f"{task}:{digest(json.canonical(given))}"
        else:
            key = _filled(task, str(self.key), kwargs if arguments is None else arguments.by_name(args, kwargs))
        if len(key.encode()) > MAX_KEY:
            key = f"{key[:40]}:{digest(key.encode())}"
        return message.Unique(key, self.until, self.ttl, self.on_conflict)


def unique_of(given: Unique | str | bool | Callable[..., str] | None) -> Unique | None:
    """What the option `unique=` means. Raises `ConfigError`."""
    if isinstance(given, Unique):
        return given
    if given is None or given is False:
        return None
    return Unique(given)


def digest(data: bytes) -> str:
    import hashlib  # loads OpenSSL; most apps have no unique tasks

    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _filled(task: str, template: str, arguments: Mapping[str, Any]) -> str:
    try:
        return template.format(**arguments)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{task}: unique key {template!r} cannot be filled from the arguments "
            f"({', '.join(arguments) or 'none'}): {type(error).__name__}: {error}"
        ) from error
