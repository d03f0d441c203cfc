"""Callers with a transaction of their own, by the library they use, all with the same few verbs.

The verbs are coroutines. Those of blocking libraries never suspend, and are run without a loop, as their users do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from penstock import AsyncResult, State

INSERT = "INSERT INTO orders VALUES (1)"


class Caller:
    """A connection of a library that blocks. `transaction` and `savepoint` are the library's own."""

    awaited = False

    def __init__(self, connection: Any, transaction: Any, savepoint: Any, insert: Callable[[], Any]) -> None:
        self.connection = connection
        self._transaction, self._savepoint, self._insert = transaction, savepoint, insert

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._transaction():
            yield

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        with self._savepoint():
            yield

    async def insert(self) -> None:
        """Do some work of its own."""
        self._insert()

    async def publish(self, task: Any, *args: Any, **options: Any) -> AsyncResult[Any]:
        return task.apply_async(args, connection=self.connection, **options)  # type: ignore[no-any-return]  # any task

    async def state(self, result: AsyncResult[Any]) -> State:
        return result.state

    async def get(self, result: AsyncResult[Any]) -> Any:
        return result.get(timeout=10)


class AwaitedCaller(Caller):
    awaited = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._transaction():
            yield

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        async with self._savepoint():
            yield

    async def insert(self) -> None:
        await self._insert()

    async def publish(self, task: Any, *args: Any, **options: Any) -> AsyncResult[Any]:
        return await task.aapply_async(args, connection=self.connection, **options)  # type: ignore[no-any-return]

    async def state(self, result: AsyncResult[Any]) -> State:
        return (await result.areport()).state

    async def get(self, result: AsyncResult[Any]) -> Any:
        return await result.aget(timeout=10)


Open = Callable[[str], AbstractAsyncContextManager[Caller]]


def run(kind: str, call: Coroutine[Any, Any, None]) -> None:
    """On a loop where the library is awaited, and on none where it blocks."""
    if kind in AWAITED:
        asyncio.run(call)
        return
    try:
        call.send(None)
    except StopIteration:
        return
    raise AssertionError("a blocking library has awaited something")


@asynccontextmanager
async def psycopg_caller(url: str) -> AsyncIterator[Caller]:
    import psycopg
    from psycopg.rows import dict_row

    # Rows as many want them: what is published must not depend on it.
    with psycopg.connect(url, row_factory=dict_row) as connection:
        yield Caller(connection, connection.transaction, connection.transaction, lambda: connection.execute(INSERT))


@asynccontextmanager
async def psycopg_raw_caller(url: str) -> AsyncIterator[Caller]:
    """With cursors that know $1 and no %s."""
    import psycopg

    with psycopg.connect(url, cursor_factory=psycopg.RawCursor, autocommit=True) as connection:
        yield Caller(connection, connection.transaction, connection.transaction, lambda: connection.execute(INSERT))


@asynccontextmanager
async def psycopg_awaited_caller(url: str) -> AsyncIterator[Caller]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as connection:
        begin = connection.transaction
        yield AwaitedCaller(connection, begin, begin, lambda: connection.execute(INSERT))


@asynccontextmanager
async def asyncpg_caller(url: str) -> AsyncIterator[Caller]:
    import json

    import asyncpg

    connection = await asyncpg.connect(url)
    # Many do this, too.
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    try:
        yield AwaitedCaller(
            connection, connection.transaction, connection.transaction, lambda: connection.execute(INSERT)
        )
    finally:
        await connection.close()


@asynccontextmanager
async def asyncpg_pool_caller(url: str) -> AsyncIterator[Caller]:
    import asyncpg

    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        begin = connection.transaction
        yield AwaitedCaller(connection, begin, begin, lambda: connection.execute(INSERT))


@contextmanager
def engine_of(url: str) -> Iterator[Any]:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def sqlalchemy_caller(url: str) -> AsyncIterator[Caller]:
    with engine_of(url) as engine, engine.connect() as connection:
        begin, nested = connection.begin, connection.begin_nested
        yield Caller(connection, begin, nested, lambda: connection.exec_driver_sql(INSERT))


@asynccontextmanager
async def session_caller(url: str) -> AsyncIterator[Caller]:
    from sqlalchemy import text
    from sqlalchemy.orm import Session

    with engine_of(url) as engine, Session(engine) as session:
        yield Caller(session, session.begin, session.begin_nested, lambda: session.execute(text(INSERT)))


@asynccontextmanager
async def scoped_session_caller(url: str) -> AsyncIterator[Caller]:
    from sqlalchemy import text
    from sqlalchemy.orm import scoped_session, sessionmaker

    with engine_of(url) as engine:
        session = scoped_session(sessionmaker(engine))
        yield Caller(session, session.begin, session.begin_nested, lambda: session.execute(text(INSERT)))
        session.remove()


def awaited_connection(driver: str) -> Open:
    @asynccontextmanager
    async def caller(url: str) -> AsyncIterator[Caller]:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
        try:
            async with engine.connect() as connection:
                begin, nested = connection.begin, connection.begin_nested
                yield AwaitedCaller(connection, begin, nested, lambda: connection.exec_driver_sql(INSERT))
        finally:
            await engine.dispose()

    return caller


def awaited_session(driver: str) -> Open:
    @asynccontextmanager
    async def caller(url: str) -> AsyncIterator[Caller]:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
        try:
            async with AsyncSession(engine) as session:
                begin, nested = session.begin, session.begin_nested
                yield AwaitedCaller(session, begin, nested, lambda: session.execute(text(INSERT)))
        finally:
            await engine.dispose()

    return caller


@contextmanager
def django_default(database: dict[str, object]) -> Iterator[Any]:
    """Django's default connection, in a process that may have had another before."""
    from django.db import connections

    from tests import django_project

    django_project.set_up()
    if hasattr(connections._connections, "default"):  # of a set-up without a database
        del connections["default"]
    connections.settings = connections.configure_settings({"default": database})
    try:
        yield connections["default"]
    finally:
        raw = connections["default"].connection
        connections.close_all()
        if raw is not None:
            raw.close()  # Django leaves one in memory open
        del connections["default"], connections.settings


def django_connection(url: str) -> AbstractContextManager[Any]:
    parts = urlsplit(url)
    login = {"USER": parts.username, "PASSWORD": parts.password, "HOST": parts.hostname, "PORT": parts.port}
    return django_default({"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], **login})


@asynccontextmanager
async def django_caller(url: str) -> AsyncIterator[Caller]:
    from django.db import connection, transaction

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(INSERT)

    with django_connection(url):
        yield Caller(connection, transaction.atomic, transaction.atomic, insert)


@asynccontextmanager
async def django_wrapper_caller(url: str) -> AsyncIterator[Caller]:
    """One of `connections[alias]`."""
    from django.db import transaction

    with django_connection(url) as connection:

        def insert() -> None:
            with connection.cursor() as cursor:
                cursor.execute(INSERT)

        yield Caller(connection, transaction.atomic, transaction.atomic, insert)


BLOCKING: dict[str, Open] = {
    "psycopg": psycopg_caller,
    "psycopg-raw-cursors": psycopg_raw_caller,
    "sqlalchemy-connection": sqlalchemy_caller,
    "sqlalchemy-session": session_caller,
    "sqlalchemy-scoped-session": scoped_session_caller,
    "django": django_caller,
    "django-alias": django_wrapper_caller,
}
AWAITED: dict[str, Open] = {
    "psycopg-async": psycopg_awaited_caller,
    "asyncpg": asyncpg_caller,
    "asyncpg-pool": asyncpg_pool_caller,
    "sqlalchemy-async-connection-psycopg": awaited_connection("psycopg"),
    "sqlalchemy-async-connection-asyncpg": awaited_connection("asyncpg"),
    "sqlalchemy-async-session-psycopg": awaited_session("psycopg"),
    "sqlalchemy-async-session-asyncpg": awaited_session("asyncpg"),
}
CALLERS = {**BLOCKING, **AWAITED}
