"""From a request's JSON to a task's arguments, by the task's own types; and which field is wrong when they do not
fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw, Struct

from penstock.app import Penstock
from penstock.client import Client
from penstock.codec import Arguments
from penstock.codec.values import json
from penstock.errors import ConfigError, DecodeError
from penstock.gateway.call_options import NO_OPTIONS, CallOptions, Rules, options_of
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import Scopes
from penstock.message import Message
from penstock.spelling import hint
from penstock.task import Task

MOST_ERRORS = 20
"""Fields that one answer names."""
_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
_NO_ARGS, _NO_KWARGS = Raw(b"[]"), Raw(b"{}")


class CallBody(Struct, forbid_unknown_fields=True):
    """The body of a call. Arrays and objects are only looked at with the task's types at hand."""

    args: Raw = _NO_ARGS
    kwargs: Raw = _NO_KWARGS
    options: CallOptions = NO_OPTIONS


class BatchCall(CallBody, forbid_unknown_fields=True, kw_only=True):
    task: str


class BatchBody(Struct, forbid_unknown_fields=True):
    calls: list[BatchCall]


_call = msgspec.json.Decoder(CallBody)
_batch = msgspec.json.Decoder(BatchBody)
_list = msgspec.json.Decoder(list[Raw])
_dict = msgspec.json.Decoder(dict[str, Raw])


def read_call(body: bytes) -> CallBody:
    found: CallBody = _read(_call, body) if body else CallBody()
    return found


def read_batch(body: bytes) -> BatchBody:
    found: BatchBody = _read(_batch, body)
    return found


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        raise Refused.field(path.rstrip("`").removeprefix("$").lstrip(".") or "body", text) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "not-json", f"the body is no JSON: {_why(error)}") from error


class Exposed(Struct, frozen=True):
    """A task that can be called from outside."""

    task: Task[..., Any]
    arguments: Arguments
    """Of JSON, whatever the task's own messages are written in."""

    def message(self, client: Client, call: CallBody, rules: Rules, place: str = "") -> Message:
        """A call as a message, ready to be published. `place` comes before the names of fields. Raises `Refused`."""
        args, kwargs = call.args, call.kwargs
        options = options_of(call.options, rules, place)
        try:
            values, named = self.arguments.decode(b"[%b,%b]" % (bytes(args), bytes(kwargs)))
        except DecodeError as error:
            raise Refused.fields(culprits(self.arguments.signature, args, kwargs, place, str(error))) from error
        try:
            return client.prepare(self.task, values, named, options)
        except (TypeError, ConfigError) as error:  # EncodeError is a TypeError
            raise Refused.field(f"{place}args", str(error)) from error


class Callables:
    """The tasks of an app that are exposed. Found when they are asked for: an app may register more."""

    def __init__(self, app: Penstock, expose: Scopes) -> None:
        self._app = app
        self._expose = expose
        self._made: dict[str, Exposed] = {}

    def names(self, scopes: Scopes) -> list[str]:
        return sorted(name for name in self._app.tasks if self._expose.may_call(name) and scopes.may_call(name))

    def find(self, name: str, scopes: Scopes) -> Exposed:
        """Raises `Refused`: 403 for what the caller may not call, whether there is such a task or not, else 404."""
        if not scopes.may_call(name):
            raise Refused(403, "forbidden", f"no scope of this token covers call:{name[:200]}")
        task = self._app.tasks.get(name)
        if task is None or not self._expose.may_call(name):
            raise Refused(404, "unknown-task", f"there is no task {name!r} to call{hint(name, self.names(scopes))}")
        made = self._made.get(name)
        if made is None or made.task is not task:
            made = self._made[name] = Exposed(task, Arguments(name, task.function, bound=task.bind))
        return made


def culprits(signature: inspect.Signature, args: Raw, kwargs: Raw, place: str, error: str) -> list[tuple[str, str]]:
    """Each field that does not fit, and why. Looked for only when something does not."""
    found: list[tuple[str, str]] = []
    for name, decoder, raw in (("args", _list, args), ("kwargs", _dict, kwargs)):
        try:
            decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            found.append((f"{place}{name}", _why(wrong)))
    if not found:
        misfits = _misfits(signature, _list.decode(args), _dict.decode(kwargs))
        found = [(place + field, why) for field, why in islice(misfits, MOST_ERRORS)]
    return found or [(f"{place}args", error)]


def _misfits(signature: inspect.Signature, args: list[Raw], kwargs: Mapping[str, Raw]) -> Iterator[tuple[str, str]]:
    parameters = list(signature.parameters.values())
    positional = [one for one in parameters if one.kind in _POSITIONAL]
    rest = next((one for one in parameters if one.kind is _Parameter.VAR_POSITIONAL), None)
    rest_named = next((one for one in parameters if one.kind is _Parameter.VAR_KEYWORD), None)
    by_name = {one.name: one for one in parameters if one.kind in (_POSITIONAL[1], _Parameter.KEYWORD_ONLY)}
    for index, raw in enumerate(args):
        parameter = positional[index] if index < len(positional) else rest
        if parameter is None:
            yield f"args[{index}]", f"is one too many: the task takes {len(positional)} positional arguments"
            return
        yield from _misfit(f"args[{index}]", parameter, raw)
    given = {one.name for one in positional[: len(args)]}
    for name, raw in kwargs.items():
        parameter = by_name.get(name, rest_named)
        shown = f"kwargs.{name[:100]}"
        if parameter is None:
            yield shown, "is no parameter of the task"
        elif name in given and name in by_name:
            yield shown, "is given in args as well"
        else:
            yield from _misfit(shown, parameter, raw)
    for one in [*positional, *(one for one in parameters if one.kind is _Parameter.KEYWORD_ONLY)]:
        if one.default is one.empty and one.name not in given and one.name not in kwargs:
            where = f"args[{positional.index(one)}]" if one.kind is _Parameter.POSITIONAL_ONLY else f"kwargs.{one.name}"
            yield where, "is missing"


def _misfit(field: str, parameter: inspect.Parameter, raw: Raw) -> Iterator[tuple[str, str]]:
    try:
        json.decoder(parameter.annotation).decode(raw)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        yield field + path.rstrip("`"), text
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield field, _why(error)


def _why(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
