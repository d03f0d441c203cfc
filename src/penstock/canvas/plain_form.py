"""What a canvas as plain data looks like. It may have come from anywhere."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from penstock.canvas.nesting import DEEPEST
from penstock.errors import ConfigError

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
