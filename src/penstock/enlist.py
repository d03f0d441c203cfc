"""The contract of publishing inside a caller's database transaction: statements as values, answers from their rows.

An engine whose server can do that gives a `Transactional`. Nothing of it does I/O: the caller's own connection runs
the statement, so that the tasks exist if and only if the caller's transaction commits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from msgspec import Struct

from penstock.broker import Answer
from penstock.message import Message

Rows = Sequence[Sequence[Any]]


class Statement(Struct, frozen=True):
    """SQL that is cut where its parameters go, since every driver marks these places in its own way.

    One more part than parameters. Parameters, and the columns of the rows, are of types that all drivers pass alike,
    and no user can have redefined: `str`, `bytes`, `int`, `float`, `bool`, `None`.
    """

    parts: tuple[str, ...]
    params: tuple[str | bytes | int | float | bool | None, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.params) + 1:
            raise ValueError(f"{len(self.params)} parameters do not go between {len(self.parts)} parts")

    def marked(self, mark: Callable[[int], str]) -> str:
        """The SQL with `mark(n)` in place of parameter n, counted from 1."""
        pieces = [self.parts[0]]
        for n, part in enumerate(self.parts[1:], 1):
            pieces += mark(n), part
        return "".join(pieces)

    def numbered(self) -> str:
        """With `$1`, `$2`, …"""
        return self.marked("${}".format)

    def formatted(self) -> str:
        """With `%s`, and a percent sign written twice."""
        doubled = Statement(tuple(part.replace("%", "%%") for part in self.parts), self.params)
        return doubled.marked(lambda n: "%s")


class Transactional(Protocol):
    """Made once, by the engine that it is of."""

    @property
    def database(self) -> str:
        """What a connection must be of, as SQLAlchemy and Django name it: "postgresql"."""
        ...

    def preparation(self, messages: Sequence[Message]) -> Coroutine[Any, Any, None] | None:
        """What the engine has to do before, on its own connection, because others would wait for the caller's commit
        if it were done there: making a queue, for example. `None`: nothing, as nearly always."""
        ...

    def enlist(self, messages: Sequence[Message]) -> Statement:
        """The statement that publishes the messages where it is run, and nothing where that is rolled back. A queue
        that is full is answered, and never an SQL error: this would take the caller's own work with it."""
        ...

    def answers(self, messages: Sequence[Message], rows: Rows) -> Sequence[Answer]:
        """What the rows of that statement say of each message. Raises `ConfigError` when they come from another
        database than the broker's; nothing was published then."""
        ...

    def refused(self, sqlstate: str) -> str | None:
        """What is wrong with a connection on which the statement failed with this code; `None` where the error says it
        best itself."""
        ...
