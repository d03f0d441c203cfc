"""What a check says when a promise is broken."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

T = TypeVar("T")

HANG = 20.0
"""Seconds after which what should have happened is a violation."""


class Violation(AssertionError):
    """An engine broke a promise."""


def expect(condition: object, promise: str) -> None:
    """Raise `Violation` with `promise` unless `condition` holds."""
    if not condition:
        raise Violation(promise)


def equal(found: object, wanted: object, what: str) -> None:
    """Raise `Violation` unless both are equal."""
    if found != wanted:
        raise Violation(f"{what}: found {found!r}, wanted {wanted!r}")


def within(found: object, wanted: Collection[object], what: str) -> None:
    """Raise `Violation` unless `found` is one of `wanted`."""
    if found not in wanted:
        raise Violation(f"{what}: found {found!r}, wanted one of {wanted!r}")


def instance(found: object, kind: type[T], what: str) -> T:
    """`found`, which must be a `kind`; raise `Violation` otherwise."""
    if not isinstance(found, kind):
        raise Violation(f"{what}: found {found!r}, wanted {kind.__name__}")
    return found
