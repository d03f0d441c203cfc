"""Call something right after the caller's transaction has committed, and never if it is rolled back.

What is published then is not part of that transaction: a crash between the two loses it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from penstock.errors import ConfigError
from penstock.transaction import described, kind

SESSIONS = frozenset({"sqlalchemy.orm.session.Session", "sqlalchemy.orm.scoping.scoped_session"})
AWAITED_SESSIONS = frozenset(
    {"sqlalchemy.ext.asyncio.session.AsyncSession", "sqlalchemy.ext.asyncio.scoping.async_scoped_session"}
)
DJANGO = frozenset({"django.db.backends.base.base.BaseDatabaseWrapper", "django.utils.connection.ConnectionProxy"})


def after_commit(connection: Any, call: Callable[[], None], acall: Callable[[], Awaitable[None]]) -> None:
    """`acall` is for sessions that are awaited. `connection=None` is Django's default one. Raises `ConfigError` for a
    library that does not tell of commits."""
    if connection is None:
        connection = django_connection()
    name = kind(connection)
    if name in DJANGO:
        connection.on_commit(call)
    elif name in SESSIONS:
        session = connection() if name.endswith("scoped_session") else connection
        Commits.of(session).wait(session, call)
    elif name in AWAITED_SESSIONS:
        session = connection() if name.endswith("scoped_session") else connection
        wait = sys.modules["sqlalchemy.util"].await_only
        Commits.of(session.sync_session).wait(session.sync_session, lambda: wait(acall()))
    else:
        raise ConfigError(
            f"{described(connection)} does not tell when it has committed: give a Django connection or an SQLAlchemy "
            "session, or call task.delay(…) after the commit. On the postgresql engine apply_async(…, connection=…) "
            "publishes inside the transaction itself"
        )


def django_connection() -> Any:
    django = sys.modules.get("django.db")
    if django is None:
        raise ConfigError(
            "there is no Django here whose commit could be waited for: call apply_async_on_commit(…, connection=…) "
            "with an SQLAlchemy session, or task.delay(…) after the commit"
        )
    return django.connection


class Commits:
    """What waits for the commits of one SQLAlchemy session: each call for that of the outermost transaction, and of all
    savepoints on the way there. Core connections have no such event: theirs comes before the commit."""

    KEY = "penstock.on_commit"
    """Where a session keeps it: listeners cannot be removed while they are called, so there is one pair for good."""

    def __init__(self, session: Any) -> None:
        self._waiting: list[tuple[list[Any], Callable[[], None]]] = []
        self._committed: list[Any] = []
        event = sys.modules["sqlalchemy.event"]
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_transaction_end", self._after_end)

    @classmethod
    def of(cls, session: Any) -> Commits:
        found = session.info.get(cls.KEY)
        if found is None:
            found = session.info[cls.KEY] = cls(session)
        return cast(Commits, found)

    def wait(self, session: Any, call: Callable[[], None]) -> None:
        if not session.in_transaction():
            session.begin()
        enclosing = [session.get_nested_transaction() or session.get_transaction()]
        while enclosing[-1].parent is not None:
            enclosing.append(enclosing[-1].parent)
        self._waiting.append((enclosing, call))

    def _after_commit(self, session: Any) -> None:
        if self._waiting:
            # Told of savepoints, too.
            self._committed.append(session.get_nested_transaction() or session.get_transaction())

    def _after_end(self, session: Any, transaction: Any) -> None:
        committed = any(transaction is one for one in self._committed)
        self._committed = [one for one in self._committed if one is not transaction]
        if not self._waiting or (committed and transaction.nested):
            return
        inside = [call for enclosing, call in self._waiting if any(transaction is one for one in enclosing)]
        self._waiting = [wait for wait in self._waiting if not any(transaction is one for one in wait[0])]
        # Only here, not at `after_commit`: the session has ended its transaction, and a failure does not harm it.
        if committed:
            call_all(inside)


def call_all(calls: Sequence[Callable[[], None]]) -> None:
    """Each of them, whatever becomes of the others. Raises the first error."""
    errors = []
    for call in calls:
        try:
            call()
        except Exception as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"another call that waited for this commit failed: {type(other).__name__}: {other}")
        raise errors[0]
