"""Publishing right after a commit, and never after a rollback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from penstock import ConfigError, Penstock, QueueFull, ResultUnavailable
from penstock.broker import Accepted, Full
from tests.transactions.callers import django_default
from tests.unit.fake_engine import FakeEngine, fake_app


@pytest.fixture
def engine() -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: sqlalchemy.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def app_with_task() -> tuple[FakeEngine, Any]:
    app, engine = fake_app()
    return engine, app.task(name="add")(lambda x: x)


def published(engine: FakeEngine) -> list[bytes]:
    return [message.body for message in engine.broker.messages]


def test_django_publishes_after_the_commit() -> None:
    from django.db import connection, transaction

    broker, task = app_with_task()
    with django_default({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}):
        with transaction.atomic():
            result = task.delay_on_commit(1)
            named = task.apply_async_on_commit((2,), connection=connection, task_id="mine")
            assert broker.broker.batches == []
            assert named.id == "mine"
            with pytest.raises(ResultUnavailable, match="for a commit"):
                result.id  # noqa: B018
            with pytest.raises(KeyError), transaction.atomic():
                task.delay_on_commit(3)
                raise KeyError
        assert result.id == "id-1"
        with pytest.raises(KeyError), transaction.atomic():
            task.delay_on_commit(4)
            raise KeyError
        assert task.delay_on_commit(5).id == "id-3"
    assert published(broker) == [b"[[1],{}]", b"[[2],{}]", b"[[5],{}]"]


def test_a_session_publishes_after_the_commit(session: Session) -> None:
    broker, task = app_with_task()
    session.execute(sqlalchemy.text("SELECT 1"))
    result = task.apply_async_on_commit((1,), connection=session)
    assert broker.broker.batches == []
    session.commit()
    assert result.id == "id-1"
    session.commit()
    assert len(broker.broker.batches) == 1


def test_a_session_without_a_transaction_begins_one(session: Session) -> None:
    broker, task = app_with_task()
    task.apply_async_on_commit((1,), connection=session)
    assert session.in_transaction()
    session.commit()
    assert len(broker.broker.batches) == 1


@pytest.mark.parametrize("end", ["rollback", "close", "reset", "invalidate"])
def test_what_is_not_committed_is_forgotten(session: Session, end: str) -> None:
    broker, task = app_with_task()
    session.execute(sqlalchemy.text("SELECT 1"))
    task.apply_async_on_commit((1,), connection=session)
    getattr(session, end)()
    session.execute(sqlalchemy.text("SELECT 1"))
    session.commit()
    assert broker.broker.batches == []


def test_savepoints(session: Session) -> None:
    broker, task = app_with_task()
    with session.begin():
        with session.begin_nested():
            task.apply_async_on_commit((1,), connection=session)
        assert broker.broker.batches == []
        nested = session.begin_nested()
        task.apply_async_on_commit((2,), connection=session)
        nested.rollback()
        with session.begin_nested(), session.begin_nested():
            task.apply_async_on_commit((3,), connection=session)
        outer = session.begin_nested()
        with session.begin_nested():
            task.apply_async_on_commit((4,), connection=session)
        outer.rollback()
    assert published(broker) == [b"[[1],{}]", b"[[3],{}]"]


def test_released_savepoints_go_with_the_transaction(session: Session) -> None:
    broker, task = app_with_task()
    with session.begin_nested():
        task.apply_async_on_commit((1,), connection=session)
    session.rollback()
    session.commit()
    assert broker.broker.batches == []


def test_a_scoped_session(engine: sqlalchemy.Engine) -> None:
    broker, task = app_with_task()
    session = scoped_session(sessionmaker(engine))
    task.apply_async_on_commit((1,), connection=session)
    session.commit()
    session.remove()
    assert len(broker.broker.batches) == 1


def test_a_failed_publish_comes_out_of_the_commit(session: Session) -> None:
    """What the transaction did stays done, and the session can be used."""
    broker, task = app_with_task()
    broker.broker.answer = lambda message: Full("q", 1, 1, "tasks", 0.5)
    session.execute(sqlalchemy.text("CREATE TABLE t (x)"))
    task.apply_async_on_commit((1,), connection=session)
    with pytest.raises(QueueFull):
        session.commit()
    broker.broker.answer = None
    assert session.execute(sqlalchemy.text("SELECT count(*) FROM t")).scalar() == 0
    result = task.apply_async_on_commit((2,), connection=session)
    session.commit()
    assert result.id == "id-1"


def test_one_failure_does_not_lose_the_others(session: Session) -> None:
    broker, task = app_with_task()
    full = Full("q", 1, 1, "tasks", 0.5)
    broker.broker.answer = lambda message: full if message.id is None else Accepted(message.id)
    for n, id in enumerate((None, "one", None, "two")):
        task.apply_async_on_commit((n,), connection=session, task_id=id)
    with pytest.raises(QueueFull) as error:
        session.commit()
    assert len(error.value.__notes__) == 1
    assert len(broker.broker.batches) == 4


def test_arguments_are_checked_at_the_call(session: Session) -> None:
    app, _ = fake_app()

    @app.task
    def typed(x: int) -> None: ...

    with pytest.raises(TypeError, match="does not fit"):
        typed.apply_async_on_commit(("one",), connection=session)


def test_what_does_not_tell_of_commits_is_refused(engine: sqlalchemy.Engine) -> None:
    _, task = app_with_task()
    with engine.connect() as connection:
        for one in (connection, object()):
            with pytest.raises(ConfigError, match=r"does not tell when it has committed: .* task\.delay"):
                task.apply_async_on_commit((1,), connection=one)


def test_without_django(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    _, task = app_with_task()
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    with pytest.raises(ConfigError, match="no Django here"):
        task.delay_on_commit(1)


def test_an_eager_call_runs_after_the_commit(engine: sqlalchemy.Engine) -> None:
    app = Penstock("tasks", broker="memory://", task_always_eager=True)
    ran: list[int] = []
    task = app.task(name="note")(lambda x: ran.append(x) or x)
    with Session(engine) as session:
        result = task.apply_async_on_commit((4,), connection=session, task_id="mine")
        assert (ran, result.id) == ([], "mine")
        with pytest.raises(ResultUnavailable, match="runs when the transaction commits"):
            result.get()
        session.commit()
        assert (ran, result.get(), result.id) == ([4], 4, "mine")
