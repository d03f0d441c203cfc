"""What settings say of tasks by their names: exact names, globs, compiled regular expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import translate
from typing import Any, Generic, TypeVar

from msgspec import Struct

from penstock.errors import ConfigError

T = TypeVar("T")

GLOB = frozenset("*?[")


class ByName(Struct, Generic[T], frozen=True):
    """Values by task name. A glob means the whole name; a regular expression begins at its start, as in Celery."""

    exact: Mapping[str, T]
    patterns: tuple[tuple[re.Pattern[str], T], ...]

    def first(self, name: str) -> T | None:
        """What is said of this very name, else by the first pattern that fits."""
        found = self.exact.get(name)
        if found is not None:
            return found
        return next((value for pattern, value in self.patterns if pattern.match(name)), None)

    def every(self, name: str) -> Iterator[T]:
        """All that is said of it, what is said of this very name last."""
        yield from (value for pattern, value in self.patterns if pattern.match(name))
        if name in self.exact:
            yield self.exact[name]

    def values(self) -> Iterator[T]:
        """All that is said of whatever task."""
        yield from self.exact.values()
        yield from (value for _, value in self.patterns)


def by_name(
    setting: str, given: Mapping[Any, Any] | Iterable[tuple[Any, Any]], read: Callable[[str, Any], T]
) -> ByName[T]:
    """`read` makes a value of each (what it is called in errors, as given). Raises `ConfigError` for a key that is no
    pattern."""
    exact: dict[str, T] = {}
    patterns: list[tuple[re.Pattern[str], T]] = []
    for key, value in given.items() if isinstance(given, Mapping) else given:
        if isinstance(key, re.Pattern) and isinstance(key.pattern, str):
            patterns.append((key, read(f"{setting}[{key.pattern!r}]", value)))
        elif not isinstance(key, str) or not key:
            raise ConfigError(f"{setting}: a task's name, a glob or a compiled regular expression, not {key!r}")
        elif GLOB & set(key):
            patterns.append((re.compile(translate(key)), read(f"{setting}[{key!r}]", value)))
        else:
            exact[key] = read(f"{setting}[{key!r}]", value)
    return ByName(exact, tuple(patterns))
