"""Connections that cannot carry a publish, and say so."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from penstock import ConfigError, Penstock, State
from tests.transactions.callers import AWAITED, BLOCKING, Caller, run
from tests.transactions.shop import Test, database


def test_another_database(app: Penstock, postgres_url: str) -> None:
    other = database(postgres_url, "strangers")
    stranger = Penstock("other", broker=other)
    with psycopg.connect(other) as connection:
        with pytest.raises(ConfigError, match=r"another database than the broker .*there is no schema"):
            app.tasks["ship"].apply_async((1,), connection=connection)
        connection.rollback()
        stranger.broker  # noqa: B018  # makes the schema
        with pytest.raises(ConfigError, match=r"belongs to other apps\. Nothing was published") as error:
            app.tasks["ship"].apply_async((1,), connection=connection)
        assert "secret" not in str(error.value)
        connection.execute("SELECT 1")  # it goes on
        connection.commit()
    assert stranger.engine.run(stranger.broker.depth("default")) == 0
    stranger.close()


def test_a_user_needs_the_right_to_use_the_schema_and_no_other(app: Penstock, url: str) -> None:
    role = "clerk"
    with psycopg.connect(url.replace("penstock:", "postgres:"), autocommit=True) as admin:
        admin.execute(f"DROP ROLE IF EXISTS {role}")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            with psycopg.connect(url.replace("penstock:", f"{role}:")) as connection:
                with pytest.raises(ConfigError, match="GRANT USAGE ON SCHEMA penstock TO"):
                    app.tasks["ship"].apply_async((1,), connection=connection)
                connection.rollback()
                admin.execute(f"GRANT USAGE ON SCHEMA penstock TO {role}")
                result = app.tasks["ship"].apply_async((1,), connection=connection, unique=True)
                connection.commit()
                assert result.state is State.PENDING
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("SELECT * FROM penstock.task")
        finally:
            admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_wrong_connection_is_told_without_the_calls_arguments(
    app: Penstock, url: str, caller: Callable[[Test], None]
) -> None:
    async def test(caller: Caller) -> None:
        await caller.publish(app.tasks["ship"], 1)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SCHEMA penstock RENAME TO away")
        try:
            with pytest.raises(ConfigError, match=r"there is no schema 'penstock' .* is aborted \(.*penstock") as error:
                await caller.publish(app.tasks["ship"], 987654321)
        finally:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ALTER SCHEMA away RENAME TO penstock")
        assert "987654321" not in str(error.value)

    caller(test)


@pytest.mark.parametrize("kind", BLOCKING)
def test_blocking_connections_are_not_awaited(app: Penstock, url: str, kind: str) -> None:
    async def test() -> None:
        async with BLOCKING[kind](url) as caller:
            with pytest.raises(ConfigError, match=r"blocks: use `task\.apply_async"):
                await app.tasks["ship"].aapply_async((1,), connection=caller.connection)

    run(kind, test())


@pytest.mark.parametrize("kind", AWAITED)
def test_awaited_connections_do_not_block(app: Penstock, url: str, kind: str) -> None:
    async def test() -> None:
        async with AWAITED[kind](url) as caller:
            with pytest.raises(ConfigError, match=r"is awaited: use `await task\.aapply_async"):
                app.tasks["ship"].apply_async((1,), connection=caller.connection)

    run(kind, test())


# -- after the commit, instead of with it
