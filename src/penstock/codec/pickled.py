"""Pickle, for those who must: whoever can make such bytes runs code where they are read, so they are read only where
the app says so, and from messages whose signature was verified before.

Values come back as what they were; annotations are not looked at.
"""

from __future__ import annotations

import pickle as library
from typing import Any

from penstock.codec.values import PICKLE, Built
from penstock.errors import DecodeError, EncodeError

PROTOCOL = 5
"""The newest that every supported Python reads."""


class _Writer:
    def encode(self, value: Any) -> bytes:
        try:
            return library.dumps(value, PROTOCOL)
        except (library.PicklingError, AttributeError) as error:
            raise EncodeError(str(error)) from error


class _AsItIs:
    """A decoder of what was built already."""

    def __init__(self, _annotation: Any, dec_hook: Any = None) -> None: ...

    def decode(self, part: Any) -> Any:
        return part


class Pickle(Built):
    def __init__(self) -> None:
        super().__init__(PICKLE, _Writer(), _Writer(), _AsItIs)

    def parse(self, data: bytes) -> Any:
        try:
            return library.loads(data)
        except Exception as error:  # code of the app's runs here, and may raise anything
            raise DecodeError(f"not a pickle that can be read here: {type(error).__name__}: {error}") from error


pickle = Pickle()
