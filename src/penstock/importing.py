"""What dotted names in settings name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from penstock.errors import ConfigError
from penstock.spelling import hint


def module(name: str) -> ModuleType:
    """The module `name`. Raises `ConfigError` when there is none; what it raises itself while it is imported stays as
    it is."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigError(f"there is no module {error.name!r} (of {name!r}) on sys.path") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name!r} is not a module's name") from error


def named(name: str) -> Any:
    """The module or object that `package.module`, `package.module:object` or `package.module.object` names. Raises
    `ConfigError`."""
    path, colon, attribute = name.partition(":")
    if not colon:
        path, attribute = _split(name)
    found: Any = module(path)
    for part in filter(None, attribute.split(".")):
        if not hasattr(found, part):
            raise ConfigError(f"{path!r} has no {attribute!r}{hint(part, vars(module(path)))}")
        found = getattr(found, part)
    return found


def exists(name: str) -> bool:
    """There is a module of that name; its package is imported to see it. Raises `ConfigError` where that is missing."""
    package, _, _ = name.rpartition(".")
    if package:
        module(package)
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _split(name: str) -> tuple[str, str]:
    """Module and attribute of a name without a colon: the last part is an attribute where it is no module."""
    package, dot, last = name.rpartition(".")
    return (package, last) if dot and not exists(name) and hasattr(module(package), last) else (name, "")
