"""Keys that are made of a call's arguments: of unique tasks, of limits, of partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from penstock.codec import Arguments
from penstock.errors import ConfigError
from penstock.message import MAX_NAME

KeyLike = str | Callable[..., str | None]
"""A template over the arguments, such as `"import:{user_id}"`, or a function of them that returns a string."""


class Given(Struct, frozen=True):
    """The arguments of one call. `arguments` is `None` for a task that this process does not know; `after`: its first
    argument comes later."""

    task: str
    arguments: Arguments | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    after: bool = False

    def named(self) -> Mapping[str, Any]:
        """The arguments that are known, by name. Raises `TypeError` as the call would."""
        if self.arguments is None:
            return self.kwargs
        if not self.after:
            return self.arguments.by_name(self.args, self.kwargs)
        named = self.arguments.by_name((None, *self.args), self.kwargs)
        return {name: value for number, (name, value) in enumerate(named.items()) if number}

    def ask(self, what: str, function: Callable[..., Any]) -> Any:
        """What a function of the arguments returns. Raises `ConfigError` where they are not all there."""
        if self.after:
            raise ConfigError(
                f"{self.task}: {what} is a function of the arguments, and the first one comes from the task before it: "
                "make it a template over the others, or call the task with .si(…)"
            )
        return function(*self.args, **self.kwargs)

    def key(self, what: str, key: KeyLike) -> str | None:
        """At most `MAX_NAME` bytes; a longer one becomes its digest. `None` if a function says so. Raises `ConfigError`
        when it cannot be made of the arguments."""
        if isinstance(key, str):
            return short(self._filled(what, key))
        made = self.ask(what, key)
        if made is None:
            return None
        if type(made) is not str or not made:
            raise ConfigError(f"{self.task}: the {what} function returned {made!r}; it must return a non-empty string")
        return short(made)

    def _filled(self, what: str, template: str) -> str:
        arguments = self.named()
        try:
            made = template.format(**arguments)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"{self.task}: {what} {template!r} cannot be filled from the arguments "
                f"({', '.join(arguments) or 'none'}): {type(error).__name__}: {error}"
            ) from error
        if not made:
            raise ConfigError(f"{self.task}: {what} {template!r} came to an empty string")
        return made


def short(key: str) -> str:
    return key if len(key.encode()) <= MAX_NAME else f"{key[:40]}:{digest(key.encode())}"


def digest(data: bytes) -> str:
    import hashlib  # loads OpenSSL; most apps have no such keys

    return hashlib.blake2b(data, digest_size=16).hexdigest()


def check_key(option: str, key: object) -> None:
    """Raise `ConfigError` for what is neither a template nor a function."""
    if not (isinstance(key, str) and key) and not callable(key):
        raise ConfigError(f"{option} must be a template over the arguments, or a function of them, not {key!r}")
