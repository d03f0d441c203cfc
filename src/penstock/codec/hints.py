"""What a function says about its parameters and its result: names, defaults and annotations, resolved once per task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Never, NoReturn, Optional, ParamSpecArgs, ParamSpecKwargs, Unpack, get_origin, get_type_hints

from penstock.errors import ConfigError


def signature_of(task: str, function: Callable[..., Any], *, without_first: bool = False) -> inspect.Signature:
    """The signature with its annotations resolved (`Any` where there is none); `without_first` drops a bound task's
    `self`.

    Raises `ConfigError` when an annotation names something that cannot be found at run time.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    hints = _resolve(task, function)
    if without_first:
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise ConfigError(
                f"task {task!r} has bind=True, so its function needs a first parameter for the task (self)"
            )
        del parameters[0]
    resolved = [parameter.replace(annotation=_usable(hints, parameter)) for parameter in parameters]
    returned = hints.get("return", Any)
    if returned in (NoReturn, Never):
        returned = Any
    return inspect.Signature(resolved, return_annotation=returned)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _resolve(task: str, function: Callable[..., Any]) -> dict[str, Any]:
    target = inspect.unwrap(function)
    while hasattr(target, "func"):
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"task {task!r}: an annotation names {error.name!r}, which its module does not have at run time; import it "
            "there (not only under TYPE_CHECKING), since arguments are converted by their annotations"
        ) from error
    except TypeError as error:
        raise ConfigError(f"task {task!r}: an annotation cannot be used: {error}") from error


def _usable(hints: dict[str, Any], parameter: inspect.Parameter) -> Any:
    annotation = hints.get(parameter.name, Any)
    if (
        annotation is object
        or isinstance(annotation, (ParamSpecArgs, ParamSpecKwargs))
        or get_origin(annotation) is Unpack
    ):
        return Any
    # `x: int = None` is written by many, and means what it says.
    return Optional[annotation] if parameter.default is None else annotation  # noqa: UP045  (strings are resolved here)
