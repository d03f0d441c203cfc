"""Results: what is known, waiting by push, and errors as they were."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import (
    BlockingCallInLoop,
    Penstock,
    RemoteError,
    ResultTimeout,
    ResultUnavailable,
    State,
    TaskRevoked,
    waiting,
)
from penstock.codec import failure
from penstock.coordinator import Revoked
from penstock.errors import ConfigError, DecodeError, ResultError
from penstock.outcome import Outcome, Progress, Report
from tests.unit.fake_engine import FakeEngine, fake_app


class Custom(Exception):
    pass


def work() -> dict[int, int]:
    return {}


def success(id: str, value: bytes = b'{"1":2}', **more: Any) -> Report:
    return Report(id, State.SUCCESS, Outcome(State.SUCCESS, value, 1000.0, 0.5, 2), "work", **more)


def failed(id: str, error: Exception) -> Report:
    return Report(id, State.FAILURE, Outcome(State.FAILURE, failure(error), 1000.0), "work")


@pytest.fixture
def setup() -> tuple[Penstock, FakeEngine, Any]:
    app, engine = fake_app()
    return app, engine, app.task(name="work", throws=(Custom,))(work)


def pending(engine: FakeEngine, id: str = "id-1") -> None:
    engine.backend.reports[id] = Report(id, State.PENDING, None, "work", "default")


def test_a_result_that_is_there(setup: Any) -> None:
    _, engine, task = setup
    task.delay()
    result = task.AsyncResult("id-1")
    engine.backend.reports["id-1"] = success("id-1", worker="w", queue="q")
    assert result.get() == result.result == result.info == {1: 2}
    assert (result.ready(), result.successful(), result.failed(), result.exists()) == (True, True, False, True)
    assert (result.state, result.status) == ("SUCCESS", "SUCCESS")
    assert (result.retries, result.worker, result.queue, result.name) == (2, "w", "q", "work")
    assert result.date_done == datetime.fromtimestamp(1000, UTC)
    assert (result.traceback, result.children) == (None, [])
    assert engine.backend.subscribed == []


def test_a_result_that_is_not_there_yet(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    engine.backend.reports["id-1"] = Report("id-1", State.STARTED, progress=Progress(1, 2, "half"))
    assert (result.ready(), result.successful(), result.failed()) == (False, False, False)
    assert (result.result, result.traceback, result.date_done) == (None, None, None)
    assert result.info == Progress(1, 2, "half")


def test_get_is_woken_by_push_from_another_thread(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    pending(engine)
    values: list[object] = []
    thread = threading.Thread(target=lambda: values.append(result.get(timeout=60)))
    thread.start()
    assert engine.backend.watched.wait(30)
    engine.backend.finish(success("id-1"))
    thread.join(10)
    assert values == [{1: 2}]
    assert engine.backend.closed == 1


def test_aget_is_woken_by_push_from_another_thread(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    pending(engine)

    async def main() -> object:
        waiting = asyncio.create_task(result.aget(timeout=60))
        await asyncio.to_thread(engine.backend.watched.wait, 30)
        await asyncio.to_thread(engine.backend.finish, success("id-1"))
        return await waiting

    assert asyncio.run(main()) == {1: 2}
    assert engine.backend.closed == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_who_waits_for_what_was_just_published_subscribes_without_asking_first(
    setup: Any, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    _, engine, task = setup
    result = task.delay()
    engine.backend.reports["id-1"] = success("id-1")  # it has ended already: the subscription tells
    monkeypatch.setattr(engine.backend, "fetch", None)
    assert (asyncio.run(result.aget()) if asynchronous else result.get()) == {1: 2}
    assert (result.state, engine.backend.closed) == ("SUCCESS", 1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_was_just_published_and_is_forgotten_is_not_waited_for(
    setup: Any, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(waiting, "FIRST_CHECK", 0.001)
    _, engine, task = setup
    result = task.delay()
    pending(engine)
    monkeypatch.setattr(engine.backend, "subscribe", lambda *_: engine.backend.reports.clear() or engine.backend)
    with pytest.raises(ResultUnavailable, match="unknown here"):
        asyncio.run(result.aget()) if asynchronous else result.get()


def test_a_notice_after_the_loop_s_end_is_harmless(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    pending(engine)
    with pytest.raises(ResultTimeout):
        asyncio.run(result.aget(timeout=0))
    engine.backend.finish(success("id-1"))


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_timeout_says_the_state(setup: Any, timeout: float) -> None:
    _, engine, task = setup
    result = task.delay()
    pending(engine)
    for call in (result.get, lambda timeout: asyncio.run(result.aget(timeout))):
        with pytest.raises(ResultTimeout, match=f"task id-1 is PENDING after {timeout:g} s"):
            call(timeout)
    assert engine.backend.closed == 2


def test_an_unknown_id_is_never_waited_for(setup: Any) -> None:
    app, _, _ = setup
    result = app.AsyncResult("nope")
    assert (result.state, result.ready(), result.exists()) == (State.UNKNOWN, False, False)
    for call in (result.get, lambda: asyncio.run(result.aget())):
        with pytest.raises(ResultUnavailable, match=r"task nope is unknown here.*never"):
            call()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_result_forgotten_while_waiting_ends_the_wait(
    setup: Any, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(waiting, "RECHECK", 0.001)
    _, engine, task = setup
    result = task.delay()
    pending(engine)
    asks = 0
    fetch = engine.backend.fetch

    async def forgetting(keys: Any) -> Any:
        nonlocal asks
        asks += 1
        if asks == 3:
            engine.backend.reports.clear()
        return await fetch(keys)

    engine.backend.fetch = forgetting
    with pytest.raises(ResultUnavailable, match="unknown here"):
        asyncio.run(result.aget()) if asynchronous else result.get()


def test_get_in_a_loop_names_aget(setup: Any) -> None:
    _, _, task = setup
    result = task.delay()

    async def main() -> None:
        with pytest.raises(BlockingCallInLoop, match=r"use await r.aget()"):
            result.get()

    asyncio.run(main())


def test_ignored_results_say_so_at_once() -> None:
    app, engine = fake_app()
    task = app.task(name="quiet", ignore_result=True)(work)
    with pytest.raises(ResultUnavailable, match=r"results of quiet are ignored \(ignore_result\)"):
        task.delay().get()
    pending(engine, "id-2")
    with pytest.raises(ResultTimeout):
        task.apply_async(ignore_result=False).get(timeout=0)
    loud = app.task(name="loud")(work)
    with pytest.raises(ResultUnavailable, match="results of loud are ignored"):
        loud.apply_async(ignore_result=True).get()
    engine.backend.reports["x"] = Report("x", State.SUCCESS, None, "quiet")
    with pytest.raises(ResultUnavailable, match="succeeded, and its result was ignored"):
        app.AsyncResult("x").get()


def test_an_error_is_raised_as_it_was(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    engine.backend.reports["id-1"] = failed("id-1", Custom("x"))
    with pytest.raises(Custom, match="x"):
        result.get()
    assert isinstance(result.get(propagate=False), Custom)
    assert isinstance(result.result, Custom)
    assert result.failed()
    assert "Custom: x" in result.traceback


def test_an_error_of_a_class_that_is_not_allowed_is_remote() -> None:
    app, engine = fake_app()
    engine.backend.reports["x"] = failed("x", Custom("x"))
    with pytest.raises(RemoteError):
        app.AsyncResult("x").get()
    app, engine = fake_app(result_exceptions=(Custom,))
    engine.backend.reports["x"] = failed("x", Custom("x"))
    with pytest.raises(Custom):
        app.AsyncResult("x").get()


@pytest.mark.parametrize(
    ("report", "error", "said"),
    [
        (Report("x", State.REVOKED), TaskRevoked, "was revoked, or expired"),
        (
            Report("x", State.REVOKED, Outcome(State.REVOKED, failure(TaskRevoked("by hand")), 1.0)),
            TaskRevoked,
            "by hand",
        ),
        (
            Report("x", State.REVOKED, Outcome(State.REVOKED, failure(ValueError("v")), 1.0)),
            TaskRevoked,
            "was revoked: v",
        ),
        (Report("x", State.FAILURE), ResultError, "its error was not stored"),
    ],
    ids=["nothing stored", "revocation", "another error", "failure"],
)
def test_ends_without_a_value(setup: Any, report: Report, error: type[Exception], said: str) -> None:
    app, engine, _ = setup
    engine.backend.reports["x"] = report
    with pytest.raises(error, match=said):
        app.AsyncResult("x").get()


def test_a_result_by_id_is_read_as_its_task_is_annotated(setup: Any) -> None:
    app, engine, _ = setup
    engine.backend.reports["x"] = success("x")
    assert app.AsyncResult("x").get() == {1: 2}
    engine.backend.reports["y"] = Report("y", State.SUCCESS, Outcome(State.SUCCESS, b'{"1":2}', 1.0), "elsewhere")
    assert app.AsyncResult("y").get() == {"1": 2}
    engine.backend.reports["z"] = success("z", b'"five"')
    with pytest.raises(DecodeError, match="work: the result does not fit the annotation"):
        app.AsyncResult("z").get()


def test_forget_and_revoke(setup: Any) -> None:
    _, engine, task = setup
    result = task.delay()
    engine.backend.reports["id-1"] = success("id-1")
    assert result.ready()
    result.forget()
    assert result.state is State.UNKNOWN
    engine.backend.reports["id-1"] = success("id-1")
    assert asyncio.run(result.areport()).state is State.SUCCESS
    asyncio.run(result.aforget())
    assert engine.backend.reports == {}
    assert result.revoke() is Revoked.REMOVED
    assert asyncio.run(result.arevoke(terminate=True)) is Revoked.RUNNING


def test_results_are_equal_by_id(setup: Any) -> None:
    app, _, task = setup
    assert len({task.delay(), app.AsyncResult("id-1"), app.AsyncResult("id-2")}) == 2
    assert app.AsyncResult("id-1") != fake_app()[0].AsyncResult("id-1")


def test_an_id_is_a_name() -> None:
    with pytest.raises(ConfigError, match="task id"):
        fake_app()[0].AsyncResult("")
