"""A task's function: what it is called, where it is, and whether another is the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from penstock.errors import ConfigError


def name_of(function: Callable[..., Any], app_name: str) -> str:
    """The name of a task that is given none: `module.function`.

    Run as a script, a module is called `__main__`; the worker will import it by its real name, so that is used.
    """
    name = getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise ConfigError(f"{function!r} has no name of its own; give it one: @app.task(name='…')")
    module = function.__module__
    return f"{_script_name() or app_name if module == '__main__' else module}.{name}"


def _script_name() -> str | None:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    path = getattr(main, "__file__", None)
    if path is None or path.startswith("<"):
        return None
    from pathlib import Path

    file = Path(path).resolve()
    parts, folder = [file.stem], file.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def same_definition(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """The same definition, run again: a reloaded module, or a console where it was typed once more."""
    first, second = getattr(one, "__code__", None), getattr(other, "__code__", None)
    if first is None or second is None:
        return one is other
    if first.co_filename.startswith("<") and second.co_filename.startswith("<"):
        return True
    return bool(first.co_filename == second.co_filename and first.co_firstlineno == second.co_firstlineno)


def place_of(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
