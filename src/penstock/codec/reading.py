"""What is read here, and in which forms: the way in of every body and result, once its signature is verified."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from penstock.codec.compression import Bounds, inflate
from penstock.codec.formats import DEFAULT_ACCEPT, accepted, serializer
from penstock.codec.values import Format
from penstock.errors import DecodeError

DEFAULT_BOUNDS = Bounds()


class Reader:
    """Reads what an app accepts. A content type is a serializer's name, and "+" with a compression's."""

    def __init__(self, accept: Collection[str] = DEFAULT_ACCEPT, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._accept = tuple(accept)
        self.bounds = bounds

    def accepts(self, name: str) -> bool:
        """Whether that serialization is read."""
        return name in self._accept

    def serializer(self, name: str) -> Format:
        """The format of that name. Raises `ConfigError` for one that is unknown, not installed or not accepted."""
        return accepted(name, self._accept)

    def open(self, data: bytes, content_type: str) -> tuple[Format, Any]:
        """The format, and what its decoders read. Raises `DecodeError` for what is not accepted, inflates beyond the
        bounds, or is damaged."""
        name, _, compression = content_type.partition("+")
        if name not in self._accept:
            raise DecodeError(
                f"content type {content_type[:40]!r} is not read here (accept_content: {', '.join(self._accept)})"
            )
        if compression:
            data = inflate(compression, data, self.bounds)
        form = serializer(name)
        return form, form.parse(data)


PLAIN = Reader()
"""Reads what every app does that says nothing."""
