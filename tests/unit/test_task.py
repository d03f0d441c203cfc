"""A task: called as its function, bound to itself, retried, and told about."""

import asyncio
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import ConfigError, Penstock, Progress, Retry
from penstock import request as requests
from penstock.clock import ManualClock
from penstock.message import Message
from penstock.request import Request
from tests.unit.fake_engine import fake_app

app = Penstock("t", broker="memory://")


@app.task
def add(x: int, y: int = 3) -> int:
    """Adds."""
    return x + y


@app.task
async def aadd(x: int, y: int) -> int:
    return x + y


@app.task(bind=True)
def who(self: Any, x: int) -> tuple[str, bool, int]:
    return self.name, self.request.called_directly, x


@app.task(bind=True)
async def awho(self: Any, x: int) -> tuple[str, bool, int]:
    await asyncio.sleep(0)
    return self.name, self.request.called_directly, x


def running(task: Any, **more: Any) -> Request:
    return Request(Message(1, task.name, b"", retries=2), 7, lambda key: f"id-{key}", "w@host", **more)


def test_called_directly_a_task_is_its_function() -> None:
    assert add(2, 3) == 5
    assert add(2) == 5
    assert asyncio.run(aadd(2, 3)) == 5
    assert who(1) == (f"{__name__}.who", True, 1)
    assert asyncio.run(awho(1)) == (f"{__name__}.awho", True, 1)


def test_coroutines_are_told_apart() -> None:
    assert [task.is_coroutine for task in (add, aadd, who, awho)] == [False, True, False, True]


def test_run_takes_the_arguments_of_a_call() -> None:
    assert add.run(1, 2) == 3
    assert who.run(4)[2] == 4


def test_request_is_the_call_that_runs() -> None:
    token = requests.current.set(running(who))
    try:
        request = who.request
        assert (request.id, request.retries, request.hostname, request.called_directly) == ("id-7", 2, "w@host", False)
        # A task that another one calls as a function does not see the other's request.
        assert add.request.called_directly
        assert who(1)[1]
        assert who.request is request
    finally:
        requests.current.reset(token)


def test_cancelled_is_seen() -> None:
    request = running(who)
    token = requests.current.set(request)
    try:
        assert not who.cancelled
        request.cancelled = True
        assert who.cancelled
    finally:
        requests.current.reset(token)
    assert not who.cancelled


def test_retry_raises_what_the_worker_reads() -> None:
    token = requests.current.set(running(who))
    error = OSError("down")
    try:
        with pytest.raises(Retry) as caught:
            who.retry((1,), {"a": 2}, exc=error, countdown=5, max_retries=9)
        retry = caught.value
        assert (retry.exc, retry.countdown, retry.max_retries) == (error, 5, 9)
        assert (retry.new_args, retry.new_kwargs) == ((1,), {"a": 2})
        moment = datetime(2030, 1, 1, tzinfo=UTC)
        assert who.retry(eta=moment, throw=False).eta == moment.timestamp()
        with pytest.raises(ConfigError, match="no timezone"):
            who.retry(eta=datetime(2030, 1, 1))
        with pytest.raises(ConfigError, match="countdown must be at least 0"):
            who.retry(countdown=-1)
    finally:
        requests.current.reset(token)


def test_retry_of_a_direct_call_raises_the_error_itself() -> None:
    with pytest.raises(OSError, match="down"):
        who.retry(exc=OSError("down"))
    with pytest.raises(Retry):
        who.retry()


def test_progress_is_kept_ten_times_a_second_and_at_the_end() -> None:
    clock = ManualClock()
    mine, engine = fake_app(clock=clock)
    task = mine.task(name="x", bind=True)(lambda self: None)
    token = requests.current.set(running(task))
    try:
        for done in range(10):
            task.progress(done, 9, "going")
            clock.advance(0.06)
    finally:
        requests.current.reset(token)
    assert [(key, note.done) for key, note in engine.backend.notes] == [(7, n) for n in (0, 2, 4, 6, 8, 9)]
    assert engine.backend.notes[0][1] == Progress(0, 9, "going")


def test_progress_in_a_loop_does_not_wait() -> None:
    mine, engine = fake_app()
    task = mine.task(name="x", bind=True)(lambda self: None)

    async def main() -> None:
        requests.current.set(running(task))
        task.progress(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [note.done for _, note in engine.backend.notes] == [1]


def test_progress_never_fails_the_task(caplog: pytest.LogCaptureFixture) -> None:
    mine, engine = fake_app()
    task = mine.task(name="x", bind=True)(lambda self: None)

    async def failing(key: object, progress: object) -> None:
        raise OSError("down")

    engine.backend.note = failing  # type: ignore[method-assign]
    token = requests.current.set(running(task))
    try:
        task.progress(1)
    finally:
        requests.current.reset(token)

    async def main() -> None:
        requests.current.set(running(task))
        task.progress(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    who.progress(1)


def test_a_task_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="pass its name"):
        pickle.dumps(add)


def test_hooks_are_known() -> None:
    from penstock import Task

    class Hooked(Task[..., Any]):
        def on_failure(self, *args: Any) -> None: ...

    assert add.hooks == frozenset()
    assert app.task(name="hooked", base=Hooked)(print).hooks == {"on_failure"}


def test_callables_and_partials_can_be_tasks() -> None:
    import functools

    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    assert app.task(name="adder")(Adder()).delay(1).id
    assert app.task(name="partial")(functools.partial(_plus, 1)).delay(2).id


def _plus(x: int, y: int) -> int:
    return x + y


def test_the_same_function_decorated_by_others_keeps_its_signature() -> None:
    import functools

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    task = app.task(name="wrapped")(logged(_plus))
    with pytest.raises(TypeError, match="argument 'y'"):
        task.delay(1, "2")
