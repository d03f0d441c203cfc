"""`apply`: here and now, as the worker would."""

import asyncio
from datetime import datetime
from typing import Any

import pytest

from penstock import BlockingCallInLoop, Ignore, Penstock, Reject, ResultUnavailable, State, Task
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
    assert "hook on_success of task t failed" in caplog.text


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
