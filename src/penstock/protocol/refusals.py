"""Errors on their way: a code that lasts, and a text for people. What is not here arrives as a `BrokerError`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from penstock.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    DecodeError,
    MessageTooLarge,
    OutcomeUnknown,
    PenstockError,
    StoreError,
    StoreFull,
    Unsupported,
)

CODES: Mapping[str, type[PenstockError]] = MappingProxyType(
    {
        "access-refused": AccessRefused,
        "unsupported": Unsupported,
        "config": ConfigError,
        "too-large": MessageTooLarge,
        "malformed": DecodeError,
        "store-full": StoreFull,
        "store": StoreError,
        "unavailable": BrokerUnavailable,
        "unknown": OutcomeUnknown,
        "failed": BrokerError,
    }
)
"""Code → error. The first whose class fits is an error's code."""


def code_of(error: BaseException) -> str:
    """The code of an error; "failed" for what has none."""
    for code, kind in CODES.items():
        if type(error) is kind:
            return code
    return next((code for code, kind in CODES.items() if isinstance(error, kind)), "failed")


def error_of(code: str, text: str) -> PenstockError:
    """The error that a code stands for; a `BrokerError` for a code of a later version."""
    return CODES.get(code, BrokerError)(text)
