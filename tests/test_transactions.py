"""Tasks that are published inside a caller's own transaction exist if and only if it commits: with every kind of
connection, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine

from penstock import AlreadyQueued, ConfigError, Penstock, Queue, QueueFull, State, Unique
from penstock.worker import Worker, WorkerOptions
from tests import doc_pages
from tests.callers import AWAITED, BLOCKING, CALLERS, Caller, django_connection, run

Test = Callable[[Caller], Awaitable[None]]


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    """A database of this module's own."""
    own = database(postgres_url, "callers")
    with psycopg.connect(own) as connection:
        connection.execute("CREATE TABLE orders (n integer)")
    return own


def database(postgres_url: str, name: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres_url.rpartition('/')[0]}/{name}"


@pytest.fixture
def app(url: str) -> Iterator[Penstock]:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS penstock CASCADE; TRUNCATE orders")
    app = Penstock("shop", broker=url, task_queues=[Queue("default"), Queue("tiny", max_length=3)])
    app.task(name="ship", unique=False)(ship)
    app.broker  # noqa: B018  # opened outside of any loop
    yield app
    app.close()


def ship(order: int) -> int:
    return order * 2


@pytest.fixture
def worker(app: Penstock) -> Iterator[None]:
    """Of the same app, in this process."""
    worker = Worker(app, WorkerOptions(pool="solo", loglevel="CRITICAL"))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    yield
    while worker._runs is None and thread.is_alive():
        time.sleep(0.01)
    worker.stop()
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, url: str) -> Callable[[Test], None]:
    """Runs a test with an open connection of each kind."""

    def in_turn(test: Test) -> None:
        async def with_caller() -> None:
            async with CALLERS[request.param](url) as caller:
                await test(caller)

        run(request.param, with_caller())

    return in_turn


def orders(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM orders").fetchone()
        assert row is not None
        return int(row[0])


def depth(app: Penstock, queue: str = "default") -> int | None:
    return app.engine.run(app.broker.depth(queue))


def test_it_exists_from_the_commit_on(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        async with caller.transaction():
            await caller.insert()
            result = await caller.publish(app.tasks["ship"], 7)
            assert len(result.id) == 32
            assert await caller.state(result) is State.UNKNOWN
        assert await caller.state(result) is State.PENDING

    caller(test)
    assert (orders(url), depth(app)) == (1, 1)


def test_it_goes_with_what_is_rolled_back(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        result = None
        with pytest.raises(KeyError):
            async with caller.transaction():
                await caller.insert()
                result = await caller.publish(app.tasks["ship"], 7)
                raise KeyError
        assert result is not None
        assert await caller.state(result) is State.UNKNOWN

    caller(test)
    assert (orders(url), depth(app)) == (0, 0)


def test_it_goes_with_its_savepoint(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        lost = None
        async with caller.transaction():
            kept = await caller.publish(app.tasks["ship"], 1)
            with pytest.raises(KeyError):
                async with caller.savepoint():
                    lost = await caller.publish(app.tasks["ship"], 2)
                    raise KeyError
            async with caller.savepoint():
                released = await caller.publish(app.tasks["ship"], 3)
        assert lost is not None
        states = [await caller.state(result) for result in (kept, lost, released)]
        assert states == [State.PENDING, State.UNKNOWN, State.PENDING]

    caller(test)
    assert depth(app) == 2


def test_a_full_queue_leaves_the_transaction_alone(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        async with caller.transaction():
            for n in range(3):
                await caller.publish(app.tasks["ship"], n, queue="tiny")
            with pytest.raises(QueueFull) as full:
                await caller.publish(app.tasks["ship"], 3, queue="tiny")
            await caller.insert()
        assert (full.value.depth, full.value.limit, full.value.unit) == (3, 3, "tasks")

    caller(test)
    assert (orders(url), depth(app, "tiny")) == (1, 3)


def test_conflicts_and_repeats_are_told(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        task = app.tasks["ship"]
        async with caller.transaction():
            mine = await caller.publish(task, 1, task_id="mine")
            again = await caller.publish(task, 1, task_id="mine")
            first = await caller.publish(task, 1, unique="ship:{order}")
            same = await caller.publish(task, 1, unique="ship:{order}")
            with pytest.raises(AlreadyQueued):
                await caller.publish(task, 1, unique=Unique("ship:{order}", on_conflict="raise"))
            later = await caller.publish(task, 1, countdown=60, priority=9, partition="a")
            await caller.insert()
        assert mine.id == again.id == "mine"
        assert first.id == same.id
        assert await caller.state(later) is State.PENDING

    caller(test)
    assert (orders(url), depth(app)) == (1, 3)


def test_workers_run_it_after_the_commit_only(
    app: Penstock, url: str, caller: Callable[[Test], None], worker: None
) -> None:
    async def test(caller: Caller) -> None:
        ship = app.tasks["ship"]
        async with caller.transaction():
            result = await caller.publish(ship, 21)
            # Another that comes later is run meanwhile.
            other = await ship.adelay(1) if caller.awaited else ship.delay(1)
            assert await caller.get(other) == 2
            assert await caller.state(result) is State.UNKNOWN
        committed = time.monotonic()
        assert await caller.get(result) == 42
        assert time.monotonic() - committed < 2

    caller(test)


# -- what does not depend on the library


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url) as connection:
        yield connection


def test_without_a_transaction_it_exists_at_once(app: Penstock, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        assert app.tasks["ship"].apply_async((1,), connection=connection).state is State.PENDING


def test_by_name(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    result = app.send_task("elsewhere", connection=connection)
    assert result.state is State.UNKNOWN
    connection.commit()
    assert result.state is State.PENDING


def test_a_batch_is_published_at_the_end_of_its_block(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    with app.batch(connection=connection):
        results = [ship.delay(1), *ship.delay_many([(2,), (3,)]), app.send_task("other", queue="other", priority=9)]
    assert len({result.id for result in results}) == 4
    assert {result.state for result in results} == {State.UNKNOWN}
    connection.commit()
    assert {result.state for result in results} == {State.PENDING}
    assert (depth(app), depth(app, "other")) == (3, 1)


def test_a_batch_that_does_not_fit_is_refused_whole(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    ship = app.tasks["ship"]
    with pytest.raises(QueueFull), app.batch(connection=connection):
        for n in range(4):
            ship.apply_async((n,), queue="tiny")
    connection.commit()
    assert depth(app, "tiny") == 0


def test_it_waits_for_others_in_their_order(app: Penstock, connection: psycopg.Connection[Any], worker: None) -> None:
    """Many tasks at once, and large ones, arrive whole."""
    with app.batch(connection=connection):
        results = [app.tasks["ship"].delay(n) for n in range(1000)]
    connection.commit()
    assert [result.get(timeout=30) for result in results] == [2 * n for n in range(1000)]


def test_others_publish_while_a_transaction_is_open(app: Penstock, connection: psycopg.Connection[Any]) -> None:
    """Near the bound, too: it holds no lock for which they would wait."""
    ship = app.tasks["ship"]
    ship.apply_async((0,), queue="tiny")
    ship.apply_async((1,), queue="tiny", connection=connection)
    started = time.monotonic()
    ship.apply_async((2,), queue="tiny")
    ship.delay(2)
    assert time.monotonic() - started < 2
    connection.commit()
    assert depth(app, "tiny") == 3


def test_others_are_woken_while_a_transaction_is_open(
    app: Penstock, url: str, connection: psycopg.Connection[Any], worker: None
) -> None:
    ship = app.tasks["ship"]
    assert ship.delay(1).get(timeout=10) == 2
    with psycopg.connect(url, autocommit=True) as looking:
        wait_until_asleep(looking)
        result = ship.apply_async((2,), connection=connection)
        times = []
        for n in range(7):
            wait_until_asleep(looking)
            started = time.monotonic()
            assert ship.delay(n).get(timeout=10) == 2 * n
            times.append(time.monotonic() - started)
    assert sorted(times)[3] < 0.15
    connection.rollback()
    assert result.state is State.UNKNOWN


def test_the_commit_wakes_who_sleeps(app: Penstock, connection: psycopg.Connection[Any], worker: None) -> None:
    """A worker looks by itself about once a second: the wait for that would show in the middle one of these times."""
    ship = app.tasks["ship"]
    assert ship.delay(1).get(timeout=10) == 2
    times = []
    for n in range(7):
        wait_until_asleep(connection)
        result = ship.apply_async((n,), connection=connection)
        committed = time.monotonic()
        connection.commit()
        assert result.get(timeout=10) == 2 * n
        times.append(time.monotonic() - committed)
    assert sorted(times)[3] < 0.15


def wait_until_asleep(connection: psycopg.Connection[Any]) -> None:
    """Until a worker is registered as sleeping, and a moment longer, in which it looks for the last time."""
    for _ in range(1000):
        row = connection.execute("SELECT count(*) FROM penstock.waiting").fetchone()
        connection.rollback()
        if row is not None and row[0]:
            time.sleep(0.2)
            return
        time.sleep(0.01)
    raise AssertionError("nobody sleeps")


@pytest.mark.parametrize("commits", [True, False])
def test_a_unique_key_waits_for_who_had_it_first(
    app: Penstock, url: str, connection: psycopg.Connection[Any], commits: bool
) -> None:
    ship = app.tasks["ship"]
    unique = Unique("ship:{order}")
    first = ship.apply_async((1,), unique=unique, connection=connection)
    found: list[str] = []

    def another() -> None:
        with psycopg.connect(url) as other:
            other.execute("INSERT INTO orders VALUES (1)")
            found.append(ship.apply_async((1,), unique=unique, connection=other).id)

    thread = threading.Thread(target=another)
    thread.start()
    wait_until_blocked(url)
    assert not found
    connection.commit() if commits else connection.rollback()
    thread.join(10)
    assert (found == [first.id]) is commits
    assert len(found) == orders(url) == 1


def wait_until_blocked(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1000):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'callers' AND wait_event_type = 'Lock'"
            ).fetchone()
            if row is not None and row[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_stricter_isolation(app: Penstock, connection: psycopg.Connection[Any], level: str) -> None:
    connection.isolation_level = psycopg.IsolationLevel[level]
    app.tasks["ship"].delay(1)
    result = app.tasks["ship"].apply_async((1,), connection=connection)
    app.tasks["ship"].delay(1)
    connection.commit()
    assert result.state is State.PENDING


def test_failed_serialization_is_for_the_caller_to_repeat(
    app: Penstock, url: str, connection: psycopg.Connection[Any]
) -> None:
    """As it came: there may be a loop that waits for this error."""
    ship = app.tasks["ship"]
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT 1")
    ship.apply_async((1,), unique="ship:{order}")
    with pytest.raises(psycopg.errors.SerializationFailure):
        ship.apply_async((1,), unique="ship:{order}", connection=connection)


def test_two_serializable_callers_of_one_queue(app: Penstock, url: str, connection: psycopg.Connection[Any]) -> None:
    """Both have counted what is there: one of them has to repeat."""
    ship = app.tasks["ship"]
    with psycopg.connect(url) as other:
        other.isolation_level = connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        ship.apply_async((1,), connection=connection)
        ship.apply_async((2,), connection=other)
        connection.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.commit()
    assert depth(app) == 1


def test_results_elsewhere_find_it(app: Penstock, url: str, connection: psycopg.Connection[Any]) -> None:
    other = Penstock("shop", broker=url, result_backend="memory://")
    result = other.send_task("ship", (1,), connection=connection)
    connection.commit()
    assert other.engine.run(other.broker.depth("default")) == 1
    assert result.id
    other.close()


# -- the wrong connection


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
