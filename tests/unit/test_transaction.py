"""Which connections are known, which are refused, and what becomes of errors; the real ones are in
tests/transactions."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from penstock import ConfigError, Penstock, QueueFull, Unsupported
from penstock.broker import Accepted, Answer, Full
from penstock.canvas.calls import Signature
from penstock.dispatch import Call
from penstock.enlist import Rows, Statement
from penstock.message import Message
from penstock.transaction import kind, sql_error
from tests.transactions.callers import django_default
from tests.unit.fake_engine import FakeEngine, fake_app


class FakeTransactional:
    """Its rows are what the connection returns."""

    def __init__(self, database: str = "postgresql") -> None:
        self.database = database
        self.before: Coroutine[Any, Any, None] | None = None
        self.full = False
        self.messages: list[Message] = []

    def preparation(self, messages: Sequence[Message]) -> Coroutine[Any, Any, None] | None:
        return self.before

    def enlist(self, messages: Sequence[Message]) -> Statement:
        self.messages += messages
        return Statement(("SELECT ", " AS n, '%'"), (len(messages),))

    def answers(self, messages: Sequence[Message], rows: Rows) -> Sequence[Answer]:
        assert tuple(rows[0]) == (len(messages), "%")
        return [Full("q", 1, 1, "tasks", 0.5) if self.full else Accepted(41) for _ in messages]

    def refused(self, code: str) -> str | None:
        return "the wrong one" if code == "3F000" else None


def enlisting_app(database: str = "sqlite") -> tuple[Penstock, FakeEngine, FakeTransactional, Any]:
    app, engine = fake_app()
    how = FakeTransactional(database)
    engine.transactional = how  # type: ignore[assignment]
    return app, engine, how, app.task(name="add")(lambda x: x)


@pytest.fixture
def session() -> Iterator[Session]:
    # SQLite's parameters are marked as ?: only for what comes before them.
    engine = sqlalchemy.create_engine("sqlite://")
    with Session(engine) as session:
        yield session
    engine.dispose()


def django_sqlite() -> Any:
    return django_default({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"})


def test_the_caller_runs_the_statement_and_the_broker_nothing() -> None:
    _, engine, how, task = enlisting_app()
    with django_sqlite() as connection:
        result = task.apply_async((1,), connection=connection, headers={"a": "b"})
    assert result.id == "id-41"
    assert how.messages[0].headers == {"a": "b"}
    assert engine.broker.batches == []


def test_observers_see_it() -> None:
    calls: list[Call] = []
    app, _, how, task = enlisting_app()
    app.broker._observers = (calls.append,)
    with django_sqlite() as connection:
        task.apply_async((1,), connection=connection)
        how.full = True
        with pytest.raises(QueueFull):
            task.apply_async((1,), connection=connection)
    with pytest.raises(ConfigError):
        task.apply_async((1,), connection=object())
    assert [(call.verb, call.items, type(call.error).__name__) for call in calls] == [
        ("enlist", 1, "NoneType"),
        ("enlist", 1, "NoneType"),
        ("enlist", 1, "ConfigError"),
    ]


def test_middleware_sees_it() -> None:
    def tag(messages: Sequence[Message]) -> Sequence[Message]:
        for message in messages:
            message.headers = {"seen": "yes"}
        return messages

    app, _, how, task = enlisting_app()
    app.publishing = (tag,)
    with django_sqlite() as connection:
        task.apply_async((1,), connection=connection)
    assert how.messages[0].headers == {"seen": "yes"}


def test_a_batch_is_one_statement_at_its_end() -> None:
    app, engine, how, task = enlisting_app()
    with django_sqlite() as connection:
        with app.batch(connection=connection):
            task.delay(1)
            app.send_task("other")
            assert how.messages == []
        assert [message.task for message in how.messages] == ["add", "other"]
        with pytest.raises(KeyError), app.batch(connection=connection):
            task.delay(1)
            raise KeyError
    assert len(how.messages) == 2
    assert engine.broker.batches == []


def test_a_connection_given_to_a_call_is_used_inside_of_a_batch_too() -> None:
    app, engine, how, task = enlisting_app()
    with django_sqlite() as connection, app.batch():
        task.apply_async((1,), connection=connection)
        assert len(how.messages) == 1
    assert engine.broker.batches == []


def test_the_engine_prepares_first() -> None:
    prepared = []

    async def prepare() -> None:
        prepared.append(True)

    _, _, how, task = enlisting_app()
    how.before = prepare()
    with django_sqlite() as connection:
        task.apply_async((1,), connection=connection)
    assert prepared


def test_engines_that_cannot_say_what_to_do_instead() -> None:
    for url in ("memory://", "fake://"):
        app = fake_app()[0] if url == "fake://" else Penstock("tasks", broker=url)
        task = app.task(name="add")(lambda x: x)
        with pytest.raises(Unsupported, match=f"the tasks of {url} are not in a database .* task.delay_on_commit"):
            task.apply_async((1,), connection=object())
        with pytest.raises(Unsupported), app.batch(connection=object()):
            task.delay(1)


def test_what_is_no_connection_is_refused_by_its_class_alone() -> None:
    class Secret:
        def __repr__(self) -> str:
            return "password"

    _, _, how, task = enlisting_app()
    with pytest.raises(ConfigError, match=r"connection=.*Secret is not a connection .* psycopg 3, asyncpg") as error:
        task.apply_async((1,), connection=Secret())
    assert "password" not in str(error.value)
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(ConfigError, match=r"connection=sqlite3\.Connection is not"),
    ):
        asyncio.run(task.aapply_async((1,), connection=connection))
    assert how.messages == []


def test_other_databases_are_refused(session: Session) -> None:
    _, _, _, task = enlisting_app("postgresql")
    with pytest.raises(ConfigError, match="is one to sqlite; the tasks are in postgresql"):
        task.apply_async((1,), connection=session)
    with django_sqlite() as connection, pytest.raises(ConfigError, match="is one to sqlite"):
        task.apply_async((1,), connection=connection)


def test_other_drivers_are_refused(session: Session) -> None:
    _, _, _, task = enlisting_app("sqlite")
    with pytest.raises(ConfigError, match="the driver pysqlite is not supported; use psycopg or asyncpg"):
        task.apply_async((1,), connection=session)


class Failing(Exception):
    sqlstate = "3F000"


class Wrapping(Exception):
    def __init__(self, orig: BaseException) -> None:
        self.orig = orig


def test_the_error_of_the_server_is_found_in_what_wraps_it() -> None:
    error = Failing()
    chained = KeyError()
    chained.__cause__ = Wrapping(error)
    copying = Wrapping(error)
    copying.sqlstate = error.sqlstate  # type: ignore[attr-defined]  # as some do
    assert all(sql_error(one) is error for one in (error, Wrapping(error), chained, copying))
    assert sql_error(KeyError()) is None


def test_errors_are_the_callers_unless_they_tell_of_a_wrong_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, how, task = enlisting_app()
    with django_sqlite() as connection:
        for code, expected in (("3F000", ConfigError), ("40001", Failing)):
            error = Failing("no")
            error.sqlstate = code

            def enlist(messages: Sequence[Message], error: Failing = error) -> Statement:
                raise error

            monkeypatch.setattr(how, "enlist", enlist)
            with pytest.raises(expected):
                task.apply_async((1,), connection=connection)


def test_kinds_are_found_by_their_base_classes(session: Session) -> None:
    class Own(Session):
        pass

    assert kind(Own()) == kind(session) == "sqlalchemy.orm.session.Session"
    assert kind(object()) == ""


def test_a_connection_is_no_part_of_a_signature() -> None:
    app, _, _, task = enlisting_app()
    with pytest.raises(ConfigError, match="a connection is not part of a call: give it to apply_async"):
        app.send(Signature("add", (1,), options={"connection": object()}))
    with pytest.raises(ConfigError, match="a connection is not part of a call"):
        task.apply((1,), connection=object())
