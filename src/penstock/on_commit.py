"""Call something right after the caller's transaction has committed, and never if it is rolled back.

What is published then is not part of that transaction: a crash between the two loses it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

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
        CommitOf(session, call).listen()
    elif name in AWAITED_SESSIONS:
        session = connection() if name.endswith("scoped_session") else connection
        wait = sys.modules["sqlalchemy.util"].await_only
        CommitOf(session.sync_session, lambda: wait(acall())).listen()
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


class CommitOf:
    """Waits for the commit of what an SQLAlchemy session is in now: of the outermost transaction, and of each savepoint
    on the way there. Core connections have no such event: theirs comes before the commit."""

    def __init__(self, session: Any, call: Callable[[], None]) -> None:
        self._session = session
        self._call = call
        if not session.in_transaction():
            session.begin()
        inner = session.get_nested_transaction() or session.get_transaction()
        self._enclosing = [inner]
        while inner.parent is not None:
            inner = inner.parent
            self._enclosing.append(inner)
        self._committed: list[Any] = []

    def listen(self) -> None:
        event = sys.modules["sqlalchemy.event"]
        event.listen(self._session, "after_commit", self._after_commit)
        event.listen(self._session, "after_transaction_end", self._after_end)

    def _after_commit(self, session: Any) -> None:
        # Told of savepoints, too.
        self._committed.append(session.get_nested_transaction() or session.get_transaction())

    def _after_end(self, session: Any, transaction: Any) -> None:
        if not any(transaction is one for one in self._enclosing):
            return
        committed = any(transaction is one for one in self._committed)
        if committed and transaction.nested:
            return
        self._forget()
        # Only here, not at `after_commit`: the session has ended its transaction, and a failure does not harm it.
        if committed:
            self._call()

    def _forget(self) -> None:
        event = sys.modules["sqlalchemy.event"]
        event.remove(self._session, "after_commit", self._after_commit)
        event.remove(self._session, "after_transaction_end", self._after_end)
