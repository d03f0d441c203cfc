"""The arguments of a task: bound and checked at the call, serialized, and given back to the worker as annotated.

The body is `[[positional…], {named…}]`. What can be positional is, so that a call has one form however it was written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import UNSET

from penstock.codec import values
from penstock.codec.hints import signature_of
from penstock.codec.reading import PLAIN as PLAIN_READER
from penstock.codec.reading import Reader
from penstock.codec.values import JSON, Format
from penstock.errors import ConfigError, DecodeError, EncodeError

NOTHING: Mapping[str, Any] = {}
PLAIN = frozenset({int, str, bool, bytes, float})
"""An argument of exactly one of these types needs no further check when it is annotated so."""

_Parameter = inspect.Parameter


class NoNames(msgspec.Struct, forbid_unknown_fields=True):
    """The second half of a body with positional arguments only."""


class Arguments:
    """How the arguments of one task become a body, and a body arguments. Built once per task; all that changes is which
    decoders are made already."""

    def __init__(
        self, task: str, function: Callable[..., Any], *, bound: bool = False, reader: Reader = PLAIN_READER
    ) -> None:
        """`bound` leaves out the first parameter. Raises `ConfigError` for annotations that cannot be used."""
        self._task = task
        self._open = reader.open
        self.signature = signature_of(task, function, without_first=bound)
        parameters = list(self.signature.parameters.values())
        positional = [p for p in parameters if p.kind in (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)]
        named = [p for p in parameters if p.kind in (_Parameter.KEYWORD_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)]
        self._kinds = tuple(p.annotation for p in positional)
        self._names = tuple(p.name if p.kind is _Parameter.POSITIONAL_OR_KEYWORD else None for p in positional)
        self._least = sum(p.default is p.empty for p in positional)
        self._most = len(positional)
        self._needed = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
        self._named = {p.name: p.annotation for p in named}
        self._rest = next((p for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._rest_named = next((p for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._typed = any(p.annotation is not Any for p in parameters)
        self._floats = float in self._kinds
        self._decoders = {(JSON, p.name): self._decoder(values.json, p) for p in parameters}
        self._fast: Callable[[bytes], Any] | None = None
        self._strip = self._least < self._most
        self._some_named = self._strip or len(positional) < len(parameters)
        if self._rest is None and not self._needed and reader.accepts(JSON):
            self._fast = self._whole_decoder(positional)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], form: Format = values.json) -> bytes:
        """Bind like a call of the function, check each argument against its annotation, and serialize.

        Raises `TypeError` when they do not bind, `EncodeError` (a `TypeError` too) naming the argument that does not
        fit.
        """
        if not kwargs and self._least <= len(args) <= self._most and not self._needed:
            for value, kind in zip(args, self._kinds, strict=False):
                if type(value) is not kind or kind not in PLAIN:
                    break
            else:
                try:
                    body = form.raw((args, NOTHING))
                except (TypeError, ValueError, OverflowError):
                    return self._encode_checked(args, NOTHING, form)
                # A NaN has become null: let the checks say so.
                if not self._floats or b"null" not in body:
                    return body
        positional, named = self.normalise(args, kwargs)
        return self._encode_checked(positional, named, form)

    def encode_after(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], form: Format = values.json) -> bytes:
        """The body of a call whose first argument comes later. `codec.around` says where.

        Raises `TypeError` when such a call does not bind, `EncodeError` naming the argument that does not fit.
        """
        try:
            self.signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._task}, called with the value before it: {error}") from None
        try:
            for value in (*args, *kwargs.values()):
                values.refuse_database_row(value)
            body = form.encode((args, kwargs))
        except EncodeError as error:
            raise EncodeError(f"{self._task}: {error}") from error
        given, named = form.halves(form.parse(body))
        try:
            for index, raw in enumerate(given, 1):
                self._one(form, self._name(index), raw)
            for name, raw in named.items():
                self._one(form, name, raw)
        except DecodeError as error:
            raise EncodeError(str(error)) from error
        return body

    def normalise(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The same call with as much as possible positional. Raises `TypeError` as the call would."""
        if self._rest is None and len(args) <= self._most:
            positional, left = list(args), len(kwargs)
            for name in self._names[len(args) :]:
                if name is None or name not in kwargs:
                    break
                positional.append(kwargs[name])
                left -= 1
            if not left and len(positional) >= self._least and not self._needed:
                return tuple(positional), NOTHING
        try:
            call = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._task}: {error}") from None
        return call.args, call.kwargs

    def by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value, defaults included. Raises `TypeError` as the call would."""
        call = self.signature.bind(*args, **kwargs)
        call.apply_defaults()
        return dict(call.arguments)

    def decode(self, body: bytes, content_type: str = JSON) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments to call the function with. Raises `DecodeError` naming the one that does not fit."""
        if self._fast is not None and content_type == JSON:
            # Where some may be named, look first: a failed decode costs more than all of this.
            if self._some_named and not body.endswith(b"{}]"):
                return self._decode_each(values.json, body)
            try:
                positional = self._fast(body)[0]
            except (msgspec.DecodeError, RecursionError):
                return self._decode_each(values.json, body)
            if not self._strip:
                return positional, {}
            given = msgspec.structs.astuple(positional)
            while given and given[-1] is UNSET:
                given = given[:-1]
            return given, {}
        try:
            form, part = self._open(body, content_type)
        except DecodeError as error:
            raise DecodeError(f"{self._task}: {error}") from error
        return self._decode_each(form, part)

    def _encode_checked(self, args: Sequence[Any], kwargs: Mapping[str, Any], form: Format) -> bytes:
        args = [_promoted(value, kind) for value, kind in self._with_kinds(args)]
        kwargs = {name: _promoted(value, self._named.get(name, Any)) for name, value in kwargs.items()}
        try:
            for value in (*args, *kwargs.values()):
                if type(value) not in PLAIN:
                    values.refuse_database_row(value)
            body = form.encode((args, kwargs))
        except EncodeError as error:
            raise EncodeError(f"{self._task}: {self._culprit(args, kwargs, form) or error}") from error
        if self._typed:
            # Read as the worker will read it: what is published can be run.
            try:
                self.decode(body, form.name)
            except DecodeError as error:
                raise EncodeError(str(error)) from error
        return body

    def _culprit(self, args: Sequence[Any], kwargs: Mapping[str, Any], form: Format) -> str | None:
        named = [(self._name(index), value) for index, value in enumerate(args)]
        for name, value in (*named, *kwargs.items()):
            try:
                values.refuse_database_row(value)
                form.encode(value)
            except EncodeError as error:
                return f"argument {name!r} ({type(value).__qualname__}) cannot be sent: {error}"
        return None

    def _decode_each(self, form: Format, part: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            given, named = form.halves(part)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DecodeError(f"{self._task}: the body is not [[positional], {{named}}]: {error}") from error
        if len(given) > self._most and self._rest is None:
            raise DecodeError(f"{self._task}: {len(given)} positional arguments, the function takes {self._most}")
        args = tuple(self._one(form, self._name(index), raw) for index, raw in enumerate(given))
        kwargs = {name: self._one(form, name, raw) for name, raw in named.items()}
        if not self._binds(len(args), kwargs):
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as error:
                raise DecodeError(f"{self._task}: {error}") from None
        return args, kwargs

    def _binds(self, count: int, kwargs: Mapping[str, Any]) -> bool:
        """Certainly so; `inspect` knows for sure, at ten times the price."""
        if self._rest is not None or self._rest_named is not None:
            return False
        return (
            self._needed <= kwargs.keys()
            and kwargs.keys().isdisjoint(self._names[:count])
            and all(name in kwargs for name in self._names[count : self._least])
        )

    def _one(self, form: Format, name: str, part: Any) -> Any:
        decoder = self._decoders.get((form.name, name))
        if decoder is None:
            parameter = self.signature.parameters.get(name, self._rest_named)
            if parameter is None:
                raise DecodeError(f"{self._task}: there is no parameter {name!r}")
            # By the parameter's own name: what `**kwargs` takes may have any, without end.
            known = (form.name, parameter.name)
            decoder = self._decoders.get(known) or self._decoder(form, parameter)
            self._decoders[known] = decoder
        try:
            return decoder.decode(part)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DecodeError(f"{self._task}: argument {name!r} does not fit its annotation: {error}") from error

    def _name(self, index: int) -> str:
        parameters = list(self.signature.parameters.values())
        if index < self._most:
            return parameters[index].name
        return self._rest.name if self._rest is not None else f"#{index}"

    def _with_kinds(self, args: Sequence[Any]) -> list[tuple[Any, Any]]:
        rest = self._rest.annotation if self._rest is not None else Any
        return [(value, self._kinds[index] if index < self._most else rest) for index, value in enumerate(args)]

    def _decoder(self, form: Format, parameter: inspect.Parameter) -> values.TypedDecoder:
        try:
            return form.decoder(parameter.annotation)
        except ConfigError as error:
            raise ConfigError(f"task {self._task!r}, parameter {parameter.name!r}: {error}") from error

    def _whole_decoder(self, positional: list[inspect.Parameter]) -> Callable[[bytes], Any]:
        """One decoder for the commonest body, with positional arguments only; all others are read one by one."""
        if self._strip:
            fields: list[Any] = [(f"p{i}", p.annotation, UNSET) for i, p in enumerate(positional)]
            fields[: self._least] = [field[:2] for field in fields[: self._least]]
            shape: Any = msgspec.defstruct("Positional", fields, array_like=True, forbid_unknown_fields=True)
        else:
            shape = GenericAlias(tuple, self._kinds)
        return values.json.decoder(tuple[shape, NoNames]).decode


def _promoted(value: Any, kind: Any) -> Any:
    # bool is an int, and both are floats, to Python and to type checkers; not to JSON.
    if (kind is int or kind is float) and isinstance(value, bool):
        return kind(value)
    return value
