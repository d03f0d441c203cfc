"""Publish inside a caller's transaction: run the engine's statement on the caller's connection, of whatever library.

A connection is known by its class's name and module, so that no library is imported that the caller has not.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from penstock.broker import Answer
from penstock.engine import Engine
from penstock.enlist import Rows, Statement, Transactional
from penstock.errors import ConfigError, Unsupported
from penstock.message import Message

# `Any` in this file are objects of libraries that need not be installed.
Run = Callable[[Any, Statement, str], Rows]
Await = Callable[[Any, Statement, str], Awaitable[Rows]]


def transactional(engine: Engine) -> Transactional:
    """Raises `Unsupported` where tasks are not in a database of callers."""
    found = engine.transactional
    if found is None:
        raise Unsupported(
            f"connection=…: the tasks of {engine.url} are not in a database whose transactions you can share. Leave it "
            "out, and publish after the commit: task.delay_on_commit(…), or apply_async_on_commit(…, connection=…)"
        )
    return found


def publish(engine: Engine, messages: Sequence[Message], connection: Any) -> Sequence[Answer]:
    """Raises `ConfigError` for what is no blocking connection to the engine's database, and else what its library
    raises."""
    how = transactional(engine)
    name = kind(connection)
    execute = BLOCKING.get(name)
    if execute is None:
        if name in AWAITED:
            raise ConfigError(f"{described(connection)} is awaited: use `await task.aapply_async(…, connection=…)`")
        raise unknown(connection)
    before = how.preparation(messages)
    if before is not None:
        engine.run(before)
    try:
        rows = execute(connection, how.enlist(messages), how.database)
    except Exception as error:
        refuse(how, error)
        raise
    return how.answers(messages, rows)


async def apublish(engine: Engine, messages: Sequence[Message], connection: Any) -> Sequence[Answer]:
    """`publish` for a connection that is awaited."""
    how = transactional(engine)
    name = kind(connection)
    execute = AWAITED.get(name)
    if execute is None:
        if name in BLOCKING:
            raise ConfigError(
                f"{described(connection)} blocks: use `task.apply_async(…, connection=…)`, in the thread that the "
                "connection belongs to (in Django: inside sync_to_async)"
            )
        raise unknown(connection)
    before = how.preparation(messages)
    if before is not None:
        await engine.arun(before)
    try:
        rows = await execute(connection, how.enlist(messages), how.database)
    except Exception as error:
        refuse(how, error)
        raise
    return how.answers(messages, rows)


# -- which connection it is


def kind(connection: object) -> str:
    """The first of its class and its base classes that is known; "" for none."""
    for each in type(connection).__mro__:
        name = f"{each.__module__}.{each.__name__}"
        if name in BLOCKING or name in AWAITED:
            return name
    return ""


def described(connection: object) -> str:
    """Its class; never itself, since some print their password."""
    return f"connection={type(connection).__module__}.{type(connection).__qualname__}"


def unknown(connection: object) -> ConfigError:
    return ConfigError(
        f"{described(connection)} is not a connection that can be used here; give one of psycopg 3, asyncpg, "
        "SQLAlchemy (a Connection or Session, or their Async… kin) or Django (django.db.connection)"
    )


def check_database(connection: object, found: str, database: str) -> None:
    if found != database:
        raise ConfigError(
            f"{described(connection)} is one to {found}; the tasks are in {database}, and can be published in its "
            "transactions only"
        )


def refuse(how: Transactional, error: BaseException) -> None:
    """Raise `ConfigError` where the SQL error means that the connection is the wrong one. All others are the caller's:
    he may have a loop that repeats a transaction for them."""
    source = sql_error(error)
    reason = how.refused(sqlstate(source)) if source is not None else None
    if reason is not None:
        # Of the server's words only the first line, and none of the libraries', which show the parameters.
        raise ConfigError(f"{reason} ({str(source).partition(chr(10))[0]})") from error


def sql_error(error: BaseException | None) -> BaseException | None:
    """The error with the server's code, by whichever library it is wrapped."""
    while error is not None:
        inner = getattr(error, "orig", None) or error.__cause__
        if sqlstate(error) and not sqlstate(inner):
            return error
        error = inner
    return None


def sqlstate(error: object) -> str:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else ""


# -- how each is used


def _psycopg(connection: Any, statement: Statement, database: str) -> Rows:
    psycopg = sys.modules["psycopg"]  # not connection.cursor(): callers choose kinds of cursors and of rows
    with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        rows: Rows = cursor.execute(statement.formatted(), statement.params).fetchall()
    return rows


async def _psycopg_awaited(connection: Any, statement: Statement, database: str) -> Rows:
    psycopg = sys.modules["psycopg"]
    async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
        await cursor.execute(statement.formatted(), statement.params)
        rows: Rows = await cursor.fetchall()
    return rows


async def _asyncpg(connection: Any, statement: Statement, database: str) -> Rows:
    rows: Rows = await connection.fetch(statement.numbered(), *statement.params)
    return rows


def _django(connection: Any, statement: Statement, database: str) -> Rows:
    check_database(connection, connection.vendor, database)
    with connection.cursor() as cursor:
        cursor.execute(statement.formatted(), statement.params)
        rows: Rows = cursor.fetchall()
    return rows


def _sqlalchemy(connection: Any, statement: Statement, database: str) -> Rows:
    sql = _sqlalchemy_sql(connection, connection.dialect, statement, database)
    rows: Rows = connection.exec_driver_sql(sql, statement.params).fetchall()
    return rows


async def _sqlalchemy_awaited(connection: Any, statement: Statement, database: str) -> Rows:
    sql = _sqlalchemy_sql(connection, connection.dialect, statement, database)
    rows: Rows = (await connection.exec_driver_sql(sql, statement.params)).fetchall()
    return rows


def _session(session: Any, statement: Statement, database: str) -> Rows:
    return _sqlalchemy(session.connection(), statement, database)


async def _session_awaited(session: Any, statement: Statement, database: str) -> Rows:
    return await _sqlalchemy_awaited(await session.connection(), statement, database)


def _sqlalchemy_sql(connection: Any, dialect: Any, statement: Statement, database: str) -> str:
    check_database(connection, dialect.name, database)
    if dialect.paramstyle == "numeric_dollar":
        return statement.numbered()
    if dialect.paramstyle in ("format", "pyformat"):
        return statement.formatted()
    raise ConfigError(f"{described(connection)}: the driver {dialect.driver} is not supported; use psycopg or asyncpg")


BLOCKING: Mapping[str, Run] = MappingProxyType(
    {
        "psycopg.Connection": _psycopg,
        "django.db.backends.base.base.BaseDatabaseWrapper": _django,
        "django.utils.connection.ConnectionProxy": _django,
        "sqlalchemy.engine.base.Connection": _sqlalchemy,
        "sqlalchemy.orm.session.Session": _session,
        "sqlalchemy.orm.scoping.scoped_session": _session,
    }
)
AWAITED: Mapping[str, Await] = MappingProxyType(
    {
        "psycopg.AsyncConnection": _psycopg_awaited,
        "asyncpg.connection.Connection": _asyncpg,
        "asyncpg.pool.PoolConnectionProxy": _asyncpg,
        "sqlalchemy.ext.asyncio.engine.AsyncConnection": _sqlalchemy_awaited,
        "sqlalchemy.ext.asyncio.session.AsyncSession": _session_awaited,
        "sqlalchemy.ext.asyncio.scoping.async_scoped_session": _session_awaited,
    }
)
