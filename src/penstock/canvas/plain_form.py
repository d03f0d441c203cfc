"""What a canvas as plain data looks like. It may have come from anywhere."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from penstock.canvas.nesting import DEEPEST, measure
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.canvas.calls import Canvas

FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Signature": frozenset({"task", "args", "kwargs", "immutable"}),
        "chain": frozenset({"tasks"}),
        "group": frozenset({"tasks"}),
        "chunks": frozenset({"tasks"}),
        "chord": frozenset({"header", "body"}),
    }
)
COMMON = frozenset({"subtask_type", "options", "link", "link_error"})


def plain_option(value: Any) -> Any:
    """An option as plain data."""
    return value.timestamp() if isinstance(value, datetime) else value


class PlainForm:
    """A canvas as plain data, also by `dict(canvas)`."""

    __slots__ = ()
    options: Mapping[str, Any]
    links: Sequence[PlainForm]
    errors: Sequence[PlainForm]

    def keys(self) -> Iterable[str]:
        return self.to_plain().keys()

    def __getitem__(self, name: str) -> Any:
        return self.to_plain()[name]

    def to_plain(self) -> dict[str, Any]:
        """What an argument of a task can be, and `maybe_signature` reads. Raises `ConfigError` for what is too deep or
        large."""
        measure(cast("Canvas[Any]", self))
        return self._plain()

    def _plain(self) -> dict[str, Any]:
        data = {"subtask_type": type(self).__name__, **self._own_plain()}
        if self.options:
            data["options"] = {name: plain_option(value) for name, value in self.options.items()}
        if self.links:
            data["link"] = [call._plain() for call in self.links]
        if self.errors:
            data["link_error"] = [call._plain() for call in self.errors]
        return data

    def _own_plain(self) -> dict[str, Any]:
        """What only its kind has."""
        raise NotImplementedError


def kind_of(data: Any, level: int) -> str:
    """The kind of what `to_plain` made. Raises `ConfigError` for what has other fields, or is nested too deeply."""
    kind = data.get("subtask_type") if isinstance(data, Mapping) else None
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if kind is None or fields is None or level > DEEPEST:
        raise ConfigError(f"not a canvas (of at most {DEEPEST} levels) as plain data: {reprlib.repr(data):.100}")
    foreign = data.keys() - fields - COMMON
    if foreign or not fields <= data.keys():
        raise ConfigError(f"a {kind} as plain data has {', '.join(sorted(fields))}; not {', '.join(map(str, foreign))}")
    return str(kind)


def other_types(kind: str, data: Any) -> ConfigError:
    return ConfigError(f"a {kind} as plain data with fields of other types: {reprlib.repr(data):.100}")


def additions(kind: str, data: Any) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Its options, links and error calls. Raises `ConfigError` for what cannot be such."""
    options, links, errors = data.get("options", {}), data.get("link", []), data.get("link_error", [])
    if not (isinstance(options, Mapping) and isinstance(links, list) and isinstance(errors, list)):
        raise ConfigError(f"a {kind} as plain data: options is a dict, link and link_error are lists")
    if not all(isinstance(name, str) for name in (*options, *data.get("kwargs", ()))):
        raise ConfigError(f"a {kind} as plain data: the names of options and arguments are texts")
    return dict(options), links, errors
