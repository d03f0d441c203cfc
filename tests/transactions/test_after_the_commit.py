"""Publishing right after a commit, and the manual's own code."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock import ConfigError, Penstock, State
from tests import doc_pages
from tests.transactions.callers import CALLERS, django_connection, run
from tests.transactions.shop import depth, orders

TELLS = ("sqlalchemy-session", "django", "sqlalchemy-async-session-psycopg", "sqlalchemy-async-session-asyncpg")


@pytest.mark.parametrize("kind", TELLS)
def test_published_after_the_commit(app: Penstock, url: str, kind: str) -> None:
    ship = app.tasks["ship"]

    async def test() -> None:
        async with CALLERS[kind](url) as caller:
            async with caller.transaction():
                await caller.insert()
                result = ship.apply_async_on_commit((1,), connection=caller.connection)
                with pytest.raises(KeyError):
                    async with caller.savepoint():
                        ship.apply_async_on_commit((2,), connection=caller.connection)
                        raise KeyError
            assert await caller.state(result) is State.PENDING
            with pytest.raises(KeyError):
                async with caller.transaction():
                    ship.apply_async_on_commit((3,), connection=caller.connection)
                    raise KeyError

    run(kind, test())
    assert (orders(url), depth(app)) == (1, 1)


@pytest.mark.parametrize("kind", [kind for kind in CALLERS if "session" not in kind and "django" not in kind])
def test_connections_that_do_not_tell_of_commits(app: Penstock, url: str, kind: str) -> None:
    async def test() -> None:
        async with CALLERS[kind](url) as caller:
            with pytest.raises(ConfigError, match="does not tell when it has committed"):
                app.tasks["ship"].apply_async_on_commit((1,), connection=caller.connection)

    run(kind, test())


# -- the manual


async def called(order: Callable[[int], Awaitable[None]], engine: AsyncEngine | None) -> None:
    await order(1)
    if engine is not None:
        await engine.dispose()


def test_the_manuals_code_runs(app: Penstock, url: str) -> None:
    """Each block in its turn; what is a function is called, once."""
    from django.db import connection

    def create(number: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (%s)", [number])

    page = doc_pages.DOCS / "guides/transactions.md"
    names: dict[str, Any] = {"__name__": "shop", "Order": SimpleNamespace(objects=SimpleNamespace(create=create))}
    code = [block for block in doc_pages.blocks(page) if block.language == "py"]
    with django_connection(url):
        for block in code:
            source = re.sub(r"://shop:secret@db/shop", url.removeprefix("postgresql"), block.code)
            exec(compile("\n" * block.line + source, str(page), "exec"), names)
            order = names.pop("order", None)
            engine = names.get("engine")
            if inspect.iscoroutinefunction(order):
                asyncio.run(called(order, engine))
            elif order is not None:
                order(1)
            if isinstance(engine, sqlalchemy.Engine):
                engine.dispose()
            names.pop("engine", None)
    names["app"].close()
    assert len(code) == 9
    assert depth(app) == 9
    assert orders(url) == 7
