"""The schema: made, brought up to date, or refused with the command that helps."""

from __future__ import annotations

import secrets
from importlib.resources import files

from asyncpg import exceptions as pg

from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.settings import Settings
from penstock.errors import StoreError

LOCK = 7360
OLDEST = 130000


def steps() -> list[tuple[int, str]]:
    """The numbered SQL files, in order."""
    folder = files("penstock.engines.postgres") / "migrations"
    found = [(int(file.name[:4]), file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found)


async def migrate(connection: Connection, settings: Settings) -> bytes:
    """Bring the schema up to date; returns its secret. Raises `StoreError`."""
    if connection.get_server_version()[0] * 10000 < OLDEST:
        version = ".".join(str(part) for part in connection.get_server_version()[:2])
        raise StoreError(f"{settings.public}: PostgreSQL {version} is too old: 13 or later is needed")
    known = steps()
    present = await _present(connection, settings)
    if present < known[-1][0]:
        await _apply(connection, settings, known)
    elif present > known[-1][0]:
        raise StoreError(
            f"{settings.public}: schema {settings.schema!r} is of version {present}, this release knows up to "
            f"{known[-1][0]}: upgrade penstock"
        )
    try:
        secret: bytes = await connection.fetchval(f"SELECT value FROM {settings.schema}.meta WHERE name = 'secret'")
    except pg.InsufficientPrivilegeError as error:
        raise _no_rights(settings) from error
    return secret


async def _present(connection: Connection, settings: Settings) -> int:
    """The version of the schema; 0: there is none."""
    # The tables themselves: to_regclass() may still remember that it was not there, when it was made meanwhile.
    made = await connection.fetchval(
        "SELECT true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = 'meta'",
        settings.schema,
    )
    if not made:
        return 0
    try:
        version: bytes | None = await connection.fetchval(
            f"SELECT value FROM {settings.schema}.meta WHERE name = 'version'"
        )
    except pg.InsufficientPrivilegeError as error:
        raise _no_rights(settings) from error
    return int(version or b"0")


def _no_rights(settings: Settings) -> StoreError:
    schema, user = settings.schema, settings.address.user or "…"
    return StoreError(
        f"{settings.public}: user {user!r} may not use the schema {schema!r}; as its owner run: "
        f"GRANT USAGE ON SCHEMA {schema} TO {user}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {user};"
    )


async def _apply(connection: Connection, settings: Settings, known: list[tuple[int, str]]) -> None:
    schema, user = settings.schema, settings.address.user or "…"
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            # A synchronous standby that is not there would hold up the start for ever. What a failover loses of this is
            # made anew by the next who opens it; what comes later, and waits for standbys, waits for this before it.
            await connection.execute("SET LOCAL synchronous_commit = local")
            present = await _present(connection, settings)  # somebody may have been faster
            if not present:
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            for number, sql in known:
                if number > present:
                    await connection.execute(sql.replace("penstock.", f"{schema}."))
            if not present:
                await connection.execute(
                    f"INSERT INTO {schema}.meta VALUES ('secret', $1) ON CONFLICT DO NOTHING", secrets.token_bytes(32)
                )
            await connection.execute(
                f"INSERT INTO {schema}.meta VALUES ('version', $1)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                b"%d" % known[-1][0],
            )
    except pg.InsufficientPrivilegeError as error:
        raise StoreError(
            f"{settings.public}: user {user!r} may not make the schema {schema!r} ({error}): as a superuser run "
            f"GRANT CREATE ON DATABASE {settings.database} TO {user}; or CREATE SCHEMA {schema} AUTHORIZATION {user};"
        ) from error
