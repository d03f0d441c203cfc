"""Where settings come from besides the arguments of an app: modules, classes, dictionaries, Django, TOML files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.spelling import hint, nearest

DEFINED = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type)
BUILT_IN, OBJECT, CODE, REDIRECTED = range(4)
"""Which of two says wins, the higher: a default, a module or object, what the app's code says, what a test says."""


class Layer(Struct, frozen=True):
    """Some settings of an app. `late`: they are read when settings are first needed, since their module may need the
    app."""

    rank: int
    read: Callable[[], Mapping[str, Any]]
    late: bool = False


def merged(layers: Iterable[Layer]) -> dict[str, Any]:
    """What all of them come to: the higher rank wins, and of two of one rank the later."""
    values: dict[str, Any] = {}
    for layer in sorted(layers, key=lambda layer: layer.rank):
        values.update(layer.read())
    return values


def layer_of(source: object, namespace: str, known: Collection[str], folder: Path) -> Layer:
    """The settings in an object, or in what a string names: `package.module`, `package.module:object`, or a TOML file
    below `folder`. Raises `ConfigError` for an object with a name that is no setting's."""
    if isinstance(source, str):
        name = source
        if name.endswith(".toml"):
            return Layer(OBJECT, lambda: checked(_in_file(folder / name), namespace, known, name), late=True)
        return Layer(OBJECT, lambda: settings_in(_named(name), namespace, known, name), late=True)
    values = settings_in(source, namespace, known, getattr(source, "__name__", type(source).__name__))
    return Layer(OBJECT, lambda: values)


def _named(name: str) -> Any:
    from penstock.importing import named  # few need it

    return named(name)


def variable(name: str) -> str:
    """The source that an environment variable names. Raises `ConfigError` when it is not set."""
    found = os.environ.get(name)
    if not found:
        raise ConfigError(f"the environment variable {name} is not set: it is to name a module with settings")
    return found


def settings_in(source: object, namespace: str, known: Collection[str], where: str) -> dict[str, Any]:
    """The settings among the attributes of `source`, or in a mapping. Raises `ConfigError`."""
    if isinstance(source, Mapping):
        return checked(source, namespace, known, where)
    start = f"{namespace}_" if namespace else ""
    found = {name: getattr(source, name) for name in dir(source) if name.startswith(start) and not name.startswith("_")}
    if not namespace:
        found = {name: value for name, value in found.items() if name in known or not _is_its_own(name, value, known)}
        from penstock.celery_settings import instead  # few need it

        for name in found:
            if name.islower() and name not in known and instead(name) is None and not nearest(name, known):
                raise ConfigError(f"{where}: unknown setting {name!r}; what is no setting begins with _ there")
    return checked(found, namespace, known, where)


def _is_its_own(name: str, value: object, known: Collection[str]) -> bool:
    """What a module has besides settings: what it imports and defines, and its own constants."""
    if isinstance(value, DEFINED) or type(value).__module__ in ("__future__", "typing"):
        return True
    from penstock.celery_settings import new_name

    return name.isupper() and not name.startswith("PENSTOCK_") and new_name(name, known) is None


def checked(given: Mapping[Any, Any], namespace: str, known: Collection[str], where: str) -> dict[str, Any]:
    """The settings by their names here: with a namespace, those that begin with it. Raises `ConfigError`."""
    start = f"{namespace}_" if namespace else ""
    found: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where}: names of settings are strings, not {key!r}")
        if start and not key.startswith(start):
            continue
        name = key.removeprefix(start)
        name = name.lower() if start else name
        if name not in known:
            raise ConfigError(f"{where}: {unknown(name, known, key)}")
        found[name] = value
    return found


def unknown(name: str, known: Collection[str], written: str | None = None) -> str:
    """Why there is no setting `name`, and what to write; `written` is how it is called where it was found."""
    shown = written or name
    if name.startswith("PENSTOCK_"):
        return f"{shown!r} is a setting of a namespace: read it with namespace='PENSTOCK'"
    from penstock.celery_settings import instead, new_name  # only on the way to an error

    modern = new_name(name, known) or name
    remedy = instead(modern)
    if remedy is not None and modern not in known:
        return f"Celery's {shown!r} is no setting here: {remedy}"
    if modern != name:
        return f"{shown!r} is called {modern!r} now"
    return f"unknown setting {shown!r}{hint(name, known)}"


def _in_file(path: Path) -> Mapping[str, Any]:
    """The settings in a TOML file; those of a pyproject.toml are in its table `tool.penstock`."""
    import tomllib  # few need it

    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    if path.name != "pyproject.toml":
        return found
    table = found.get("tool", {}).get("penstock", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: tool.penstock must be a table, not {table!r}")
    return table
