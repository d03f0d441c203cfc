"""The result of a task: serialized by the worker, given back to the caller as annotated."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.codec import values
from penstock.codec.reading import PLAIN, Reader
from penstock.codec.values import JSON, Format
from penstock.errors import ConfigError, DecodeError, EncodeError

_SIMPLE = frozenset({int, str, bool, bytes, type(None)})
"""What needs no look inside."""
NULL = b"null"
"""What most tasks return, in JSON."""


class Returned:
    """How the results of one task become bytes and are read again."""

    def __init__(self, task: str, annotation: Any = Any, *, reader: Reader = PLAIN, what: str = "the result") -> None:
        """`what` it is, for people. Raises `ConfigError` for an annotation that cannot be used."""
        self._task, self._what = task, what
        self._open = reader.open
        self._plain = JSON if reader.accepts(JSON) else None
        self._annotation = annotation
        self._decoder = self._decoder_in(values.json)

    def encode(self, value: Any, form: Format = values.json) -> bytes:
        """Raises `EncodeError`."""
        if value is None and form is values.json:
            return NULL
        if type(value) in _SIMPLE:
            try:
                return form.raw(value)
            except (ValueError, OverflowError):
                pass  # said below
        try:
            values.refuse_database_row(value)
            return form.encode(value)
        except EncodeError as error:
            raise EncodeError(
                f"{self._task}: {self._what} ({type(value).__qualname__}) cannot be stored: {error}"
            ) from error

    def decode(self, data: bytes, content_type: str = JSON) -> Any:
        """Raises `DecodeError` when it is not what the function's annotation promises, or not read here."""
        decoder, part = self._decoder, data
        if content_type != self._plain:
            try:
                form, part = self._open(data, content_type)
            except DecodeError as error:
                raise DecodeError(f"{self._task}: {self._what}: {error}") from error
            decoder = self._decoder_in(form)
        try:
            return decoder.decode(part)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DecodeError(
                f"{self._task}: {self._what} does not fit the annotation {self._annotation!r}: {error}"
            ) from error

    def _decoder_in(self, form: Format) -> values.TypedDecoder:
        try:
            return form.decoder(self._annotation)
        except ConfigError as error:
            raise ConfigError(f"task {self._task!r}, {self._what.removeprefix('the ')}: {error}") from error
