"""`task.apply()`: a call that runs here and now, deciding as the worker decides."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from penstock import request as requests
from penstock.blocking import refuse_in_loop
from penstock.canvas.replacing import replacement
from penstock.codec import failure
from penstock.errors import ConfigError
from penstock.hooks import ErrorInfo
from penstock.outcome import Outcome, Report, State
from penstock.request import Request
from penstock.result import EagerResult
from penstock.retry import Again, Drop, GiveUp, Instead, decide

if TYPE_CHECKING:
    from penstock.canvas.calls import Signature
    from penstock.message import Message
    from penstock.task import Task

R = TypeVar("R")

_log = logging.getLogger("penstock.eager")


def apply(
    task: Task[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> EagerResult[R]:
    if task.is_coroutine:
        refuse_in_loop("apply()", "await task.aapply()")
        import asyncio

        return asyncio.run(aapply(task, args, kwargs, options))
    eager = EagerRun(task, args, kwargs, options)
    while eager.report is None:
        with eager.attempt() as request:
            eager.returned(eager.task.run(*request.args, **request.kwargs))
    return EagerResult(eager.report, app=task.app, task=eager.task)


async def aapply(
    task: Task[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> EagerResult[R]:
    eager = EagerRun(task, args, kwargs, options)
    while eager.report is None:
        with eager.attempt() as request:
            value = eager.task.run(*request.args, **request.kwargs)
            eager.returned(await value if eager.task.is_coroutine else value)
    return EagerResult(eager.report, app=task.app, task=eager.task)


class EagerRun(Generic[R]):
    """One call, run until it has ended. `report` is there then."""

    def __init__(
        self, task: Task[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self.task = task
        self._clock = task.app.clock
        # Prepared, and read again, like a published one: what a queue would change in the arguments is changed here
        # too.
        self._message: Message = task.app.client.prepare(task, args, kwargs, options)
        self._id = self._message.id or uuid.uuid4().hex
        self.report: Report | None = None

    @contextmanager
    def attempt(self) -> Iterator[Request]:
        """One run of the function; what it raises is decided upon."""
        args, kwargs = self.task.arguments(self._message.body, self._message.content_type)
        request = Request(self._message, self._id, str, "eager", args, kwargs, is_eager=True)
        token = requests.current.set(request)
        self._started = self._clock.time()
        try:
            self._hook("before_start", self._id, args, kwargs)
            yield request
        except Exception as error:
            self._raised(error, request)
        finally:
            requests.current.reset(token)

    def returned(self, value: R) -> None:
        request = self.task.request
        data = self.task.encode_result(value)
        self._end(State.SUCCESS, data, self.task.result_format.name)
        self._hook("on_success", value, self._id, request.args, request.kwargs)
        self._hook("after_return", State.SUCCESS, value, self._id, request.args, request.kwargs, None)

    def _raised(self, error: Exception, request: Request) -> None:
        decision = decide(self.task.policy, self._message, error, self._clock.time(), random.random)
        if isinstance(decision, Again):
            self._retry(decision, request)
        elif isinstance(decision, Instead):
            self._instead(cast("Signature[Any]", decision.call), request)
        elif isinstance(decision, Drop):
            self.report = Report(self._id, State.SUCCESS, None, self.task.name, self._message.queue)
        else:
            self._fail(decision.error if isinstance(decision, GiveUp) else error, request)

    def _instead(self, call: Signature[Any], request: Request) -> None:
        app = self.task.app
        try:
            self._message = replacement(app, self._message, call, self._clock.time())
            other = app.tasks[call.task]
            if other.is_coroutine and not self.task.is_coroutine:
                raise ConfigError(f"apply() of {self.task.name} runs plain functions: {other.name} cannot replace it")
        except Exception as error:
            self._fail(error, request)
        else:
            self.task = cast("Task[..., R]", other)

    def _retry(self, again: Again, request: Request) -> None:
        self._message = again.message
        if again.args is not None or again.kwargs is not None:
            args = request.args if again.args is None else again.args
            kwargs = request.kwargs if again.kwargs is None else again.kwargs
            self._message.body, self._message.content_type = self.task.body(args, kwargs)
        info = ErrorInfo.of(again.reason)
        self._hook("on_retry", again.reason, self._id, request.args, request.kwargs, info)
        self._hook("after_return", State.RETRY, again.reason, self._id, request.args, request.kwargs, info)

    def _fail(self, error: BaseException, request: Request) -> None:
        info = ErrorInfo.of(error)
        self._end(State.FAILURE, failure(error, info.traceback), "json")
        self._hook("on_failure", error, self._id, request.args, request.kwargs, info)
        self._hook("after_return", State.FAILURE, error, self._id, request.args, request.kwargs, info)

    def _end(self, state: State, value: bytes, content_type: str) -> None:
        now, retries = self._clock.time(), self._message.retries
        outcome = Outcome(state, value, now, now - self._started, retries, content_type)
        self.report = Report(self._id, state, outcome, self.task.name, self._message.queue, retries, "eager")

    def _hook(self, name: str, *args: Any) -> None:
        try:
            getattr(self.task, name)(*args)
        except Exception:
            _log.exception("hook %s of task %s failed", name, self.task.name)
