"""`apply`: here and now, as the worker would."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import (
    BlockingCallInLoop,
    Ignore,
    Penstock,
    Reject,
    ResultUnavailable,
    State,
    Task,
    UnknownTask,
    as_completed,
    eager,
)
from penstock.clock import ManualClock
from penstock.coordinator import Revoked
from tests import keys
from tests.unit.fake_engine import fake_app


class Recording(Task[..., Any]):
    calls: list[tuple[Any, ...]]

    def before_start(self, *args: Any) -> None:
        self.calls.append(("before_start", *args[1:]))

    def on_success(self, *args: Any) -> None:
        self.calls.append(("on_success", args[0], *args[2:]))

    def on_failure(self, *args: Any) -> None:
        self.calls.append(("on_failure", repr(args[0]), *args[2:4], args[4].type))

    def on_retry(self, *args: Any) -> None:
        self.calls.append(("on_retry", repr(args[0]), *args[2:4], args[4].type))

    def after_return(self, *args: Any) -> None:
        self.calls.append(("after_return", args[0].value, *args[3:5]))


def recording(function: Any, **options: Any) -> Any:
    app, _ = fake_app()
    task = app.task(name="t", base=Recording, **options)(function)
    task.calls = []
    return task


def test_it_runs_with_arguments_as_a_queue_would_give_them() -> None:
    def function(at: datetime, other: Any) -> Any:
        return [type(at).__name__, other]

    result = recording(function).apply((datetime(2026, 1, 1),), {"other": {1, 2}})
    assert result.get() == ["datetime", [1, 2]]
    assert (result.state, result.ready(), result.successful()) == (State.SUCCESS, True, True)


def test_it_retries_and_calls_the_hooks() -> None:
    def function(self: Any, x: int) -> int:
        if self.request.retries < 2:
            raise OSError(f"no {self.request.retries}")
        assert self.request.is_eager
        return x

    task = recording(function, bind=True, autoretry_for=(OSError,), max_retries=2)
    result = task.apply((1,))
    assert (result.get(), result.retries) == (1, 2)
    run: tuple[Any, ...] = (("before_start", (1,), {}),)
    retries: list[Any] = [
        (("on_retry", f"OSError('no {n}')", (1,), {}, OSError), ("after_return", "RETRY", (1,), {})) for n in range(2)
    ]
    success: tuple[Any, ...] = (("on_success", 1, (1,), {}), ("after_return", "SUCCESS", (1,), {}))
    assert tuple(task.calls) == run + retries[0] + run + retries[1] + run + success


def test_it_fails_when_no_retries_are_left() -> None:
    def function() -> None:
        raise OSError("down")

    task = recording(function, autoretry_for=(OSError,), max_retries=1)
    result = task.apply()
    assert result.failed()
    with pytest.raises(OSError, match="down"):
        result.get()
    assert "OSError: down" in result.traceback
    assert [call[0] for call in task.calls][-2:] == ["on_failure", "after_return"]


def test_retry_with_other_arguments() -> None:
    def function(self: Any, x: int) -> int:
        if x < 3:
            raise self.retry(args=(x + 1,), countdown=1000)
        return x

    assert recording(function, bind=True).apply((1,)).get() == 3


def test_ignore_and_reject() -> None:
    def ignore() -> None:
        raise Ignore

    def reject() -> None:
        raise Reject("no good", requeue=True)

    with pytest.raises(ResultUnavailable):
        recording(ignore).apply().get()
    result = recording(reject).apply()
    assert result.failed()
    assert "no good" in str(result.result)


def test_a_result_that_cannot_be_stored_fails() -> None:
    result = recording(lambda: object()).apply()
    assert result.failed()
    assert "cannot be stored" in str(result.result)


def test_the_request_ends_with_the_run() -> None:
    from penstock import request as requests

    recording(lambda: 5).apply()
    recording(lambda: 1 / 0).apply()
    assert requests.current.get() is None


def test_a_bad_call_raises() -> None:
    with pytest.raises(TypeError):
        recording(lambda x: x).apply()


def test_coroutines_run_too() -> None:
    async def function(x: int) -> int:
        await asyncio.sleep(0)
        return x

    task = recording(function)
    assert task.apply((1,)).get() == 1

    async def main() -> None:
        assert (await task.aapply((2,))).get() == 2
        with pytest.raises(BlockingCallInLoop, match=r"await task.aapply\(\)"):
            task.apply((1,))

    asyncio.run(main())


def test_an_error_in_a_hook_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Task[..., Any]):
        def on_success(self, *args: Any) -> None:
            raise KeyError("hook")

    app, _ = fake_app()
    assert app.task(name="t", base=Bad)(lambda: 5).apply().get() == 5
    assert "hook on_success of task t[" in caplog.text


def test_nothing_is_published() -> None:
    app, engine = fake_app()
    result = app.task(name="t")(lambda: 5).apply(task_id="mine")
    assert engine.broker.batches == []
    assert result.id == "mine"
    assert result.revoke() is Revoked.ENDED
    result.forget()
    assert result.get() == 5
    assert asyncio.run(result.aget()) == 5


def test_what_is_compressed_signed_or_pickled_runs_eagerly_too() -> None:
    settings: Any = {"accept_content": ["json", "pickle"], "compression_min_bytes": 10, "result_compression": "zlib"}
    app = Penstock("unit", broker="memory://", security_key=keys.pem(keys.private()), **settings)

    @app.task(name="t", serializer="pickle", compression="zlib", bind=True)
    def twice(self: Any, text: str) -> str:
        if not self.request.retries:
            raise self.retry(args=(text.upper(),))
        return text * 2

    result = twice.apply(("all work and no play",))
    assert result.get() == "ALL WORK AND NO PLAY" * 2
    app.close()
    app.configure(task_always_eager=True, task_store_eager_result=True)
    stored = twice.delay("all work and no play")
    assert app.AsyncResult(stored.id).get() == stored.get() == "ALL WORK AND NO PLAY" * 2


def eager_app(**settings: Any) -> Any:
    """Whose broker nobody could reach: an eager call needs none."""
    return Penstock("tasks", broker="redis://nowhere.invalid:1/0", task_always_eager=True, **settings)


def test_always_eager_runs_each_kind_of_call_at_once() -> None:
    app, ran = eager_app(), list[Any]()

    @app.task(name="note")
    def note(x: int) -> int:
        ran.append(x)
        return x

    assert note.delay(1).get() == 1
    assert note.apply_async((2,), countdown=3600, queue="q", priority=9).get() == 2
    assert app.send_task("note", (3,)).get() == 3
    assert app.send(note.s(4)).get() == 4
    assert [result.get() for result in note.delay_many([(5,), note.s(6)])] == [5, 6]
    with app.batch():
        assert note.delay(7).get() == 7
    assert ran == [1, 2, 3, 4, 5, 6, 7]
    assert [one.get() for one in as_completed([note.delay(8), note.delay(9)])] == [8, 9]


def test_always_eager_in_a_running_loop() -> None:
    app = eager_app()

    @app.task
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    async def main() -> None:
        assert await (await double.adelay(1)).aget() == 2
        assert [await one.aget() for one in await double.adelay_many([(2,), (3,)])] == [4, 6]
        assert [await one.aget() async for one in as_completed([await double.adelay(4)])] == [8]
        with pytest.raises(BlockingCallInLoop, match=r"await task.adelay\(\)"):
            double.delay(1)

    asyncio.run(main())
    assert double.delay(5).get() == 10


def test_a_task_that_calls_another_is_its_parent() -> None:
    app, seen = eager_app(), list[Any]()

    @app.task(bind=True)
    def inner(self: Any) -> None:
        seen.append((self.request.parent_id, self.request.root_id))

    @app.task(bind=True)
    def outer(self: Any) -> str:
        inner.delay()
        seen.append(self.request.id)
        return "done"

    assert outer.apply_async(task_id="first").get() == "done"
    assert seen == [("first", "first"), "first"]


def test_errors_stay_in_the_result_until_they_are_to_propagate() -> None:
    def function(self: Any) -> None:
        raise ValueError(f"try {self.request.retries}")

    options: Any = {"name": "t", "bind": True, "autoretry_for": (ValueError,), "max_retries": 2}
    result = eager_app().task(**options)(function).delay()
    assert (result.state, result.retries) == (State.FAILURE, 2)
    raising = eager_app(task_eager_propagates=True).task(**options)(function)
    with pytest.raises(ValueError, match="try 2") as caught:
        raising.delay()
    assert caught.traceback[-1].name == "function"
    with pytest.raises(ValueError, match="try 2"):
        raising.apply()


def test_a_retry_with_arguments_that_cannot_be_sent_is_an_error() -> None:
    def function(self: Any, x: int) -> None:
        raise self.retry(args=(object(),))

    with pytest.raises(TypeError, match="argument 'x'"):
        eager_app(task_eager_propagates=True).task(name="t", bind=True)(function).delay(1)


def test_retries_without_end_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "MOST", 20)
    task = eager_app().task(name="t", autoretry_for=(ZeroDivisionError,), max_retries=None)(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="t was retried 20 times"):
        task.delay()


def test_ignored_and_retried_tasks_propagate_nothing() -> None:
    app, tries = eager_app(task_eager_propagates=True), list[int]()

    @app.task(name="ignored")
    def ignored() -> None:
        raise Ignore

    @app.task(name="retried", autoretry_for=(OSError,))
    def retried() -> int:
        tries.append(1)
        if len(tries) < 2:
            raise OSError
        return 5

    assert ignored.delay().state is State.SUCCESS
    assert retried.delay().get() == 5


def test_a_task_that_nobody_registered_is_said() -> None:
    with pytest.raises(UnknownTask, match=r"no task 'shop\.mail' is registered here"):
        eager_app().send_task("shop.mail")


def test_results_are_stored_only_if_asked_for() -> None:
    for stored in (True, False):
        app = Penstock("tasks", broker="memory://", task_always_eager=True, task_store_eager_result=stored)
        double = app.task(name="double")(lambda x: 2 * x)
        fails = app.task(name="fails")(lambda: 1 / 0)
        first, second = double.delay(4), fails.delay()
        silent = double.apply_async((4,), ignore_result=True)
        kept = [app.AsyncResult(one.id).state for one in (first, second, silent)]
        assert kept == ([State.SUCCESS, State.FAILURE] if stored else [State.UNKNOWN] * 2) + [State.UNKNOWN]
        assert silent.get() == 8
        if stored:
            assert app.AsyncResult(first.id).get() == 8
        app.close()


def test_publishing_middleware_sees_a_call_that_would_be_published() -> None:
    def stamp(messages: Any) -> Any:
        return [replace(message, headers={"by": "me"}) for message in messages]

    app = eager_app(publishing=[stamp])

    @app.task(name="t", bind=True)
    def task(self: Any) -> Any:
        return self.request.headers

    assert task.delay().get() == {"by": "me"}
    assert asyncio.run(task.adelay()).get() == {"by": "me"}
    assert task.apply().get() == {}


def test_running_middleware_is_around_an_eager_call() -> None:
    seen: list[str] = []

    def around(delivery: Any, call: Any) -> Any:
        seen.append(delivery.message.task)
        return call()

    app = Penstock("tasks", broker="memory://", running=[around])
    assert app.task(name="t")(lambda: 5).apply().get() == 5
    assert seen == ["t"]


def test_an_expired_call_is_revoked() -> None:
    app = Penstock("tasks", broker="memory://", task_always_eager=True, clock=ManualClock(1000.0))
    assert app.task(name="t")(lambda: 5).apply_async(expires=datetime.fromtimestamp(999, UTC)).state is State.REVOKED


def test_what_a_failed_test_raises_is_not_the_task_s() -> None:
    def function() -> None:
        pytest.fail("seen by the test")

    with pytest.raises(pytest.fail.Exception, match="seen by the test"):
        eager_app().task(name="t")(function).delay()
