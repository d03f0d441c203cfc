"""A task of Django's as a function that Penstock runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.tasks import Task, TaskContext, TaskResult, TaskResultStatus
from django.tasks.base import TaskError
from django.tasks.signals import task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json
from msgspec import Struct
from msgspec.structs import replace

from penstock.errors import MessageTooLarge
from penstock.request import Request

if TYPE_CHECKING:
    from penstock.app import Penstock

EARLIER = "earlier worker"
"""Stands for the worker of a run that is not known any more; Django counts attempts by workers."""


class Begun(Struct):
    """What each run publishes as a part when it begins, since a result keeps only how the last one ended."""

    args: list[Any]
    kwargs: dict[str, Any]
    enqueued: float
    started: float
    worker: str


class Run:
    """Runs a task whose function is a plain one. Times are Unix times of the app's clock."""

    def __init__(self, task: Task, backend: type[Any]) -> None:
        self.task = task
        self._backend = backend
        self.__name__ = task.name
        self.__module__ = task.func.__module__
        self.__doc__ = task.func.__doc__

    def __call__(self, bound: Any, /, *args: Any, **kwargs: Any) -> Any:
        result = self._begun(bound.request, bound, args, kwargs)
        if keeps_parts(bound.app):
            record = _record(bound, result)
            try:
                bound.publish_partial(record)
            except MessageTooLarge:
                bound.publish_partial(_without_arguments(record))
        task_started.send(self._backend, task_result=result)
        try:
            value = normalize_json(self.task.func(*self._context(result), *args, **kwargs))
        except BaseException as error:
            task_finished.send(self._backend, task_result=_failed(result, error))
            raise
        task_finished.send(self._backend, task_result=_succeeded(result, value))
        return value

    def _context(self, result: TaskResult) -> Sequence[TaskContext]:
        return (TaskContext(task_result=result),) if self.task.takes_context else ()

    def _begun(self, request: Request, bound: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        now = aware(bound.app.clock.time())
        return TaskResult(
            task=self.task,
            id=request.id,
            status=TaskResultStatus.RUNNING,
            enqueued_at=aware(request.message.sent),
            started_at=now,
            finished_at=None,
            last_attempted_at=now,
            args=args,
            kwargs=kwargs,
            backend=self.task.backend,
            errors=[],
            worker_ids=[EARLIER] * request.run + [request.worker],
        )


class AwaitedRun(Run):
    """Runs a task whose function is a coroutine function."""

    async def __call__(self, bound: Any, /, *args: Any, **kwargs: Any) -> Any:
        result = self._begun(bound.request, bound, args, kwargs)
        if keeps_parts(bound.app):
            record = _record(bound, result)
            try:
                await bound.apublish_partial(record)
            except MessageTooLarge:
                await bound.apublish_partial(_without_arguments(record))
        await task_started.asend(self._backend, task_result=result)
        try:
            value = normalize_json(await self.task.func(*self._context(result), *args, **kwargs))
        except BaseException as error:
            await task_finished.asend(self._backend, task_result=_failed(result, error))
            raise
        await task_finished.asend(self._backend, task_result=_succeeded(result, value))
        return value


def keeps_parts(app: Penstock) -> bool:
    """What runs publish is kept beside results. RabbitMQ alone keeps none."""
    return app.keeps_results and app.results.broker.features.streams


def aware(time: float) -> datetime:
    """A Unix time as Django's settings want it: aware, or naive without USE_TZ."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment if timezone.now().tzinfo is not None else timezone.make_naive(moment)


def told(error: BaseException, traceback: str) -> TaskError:
    kind = type(error)
    return TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=traceback)


def _record(bound: Any, result: TaskResult) -> Begun:
    sent = bound.request.message.sent
    return Begun(result.args, result.kwargs, sent, bound.app.clock.time(), bound.request.worker)


def _without_arguments(record: Begun) -> Begun:
    """A message may be larger than a part."""
    return replace(record, args=[], kwargs={})


def _succeeded(result: TaskResult, value: Any) -> TaskResult:
    return _ended(result, TaskResultStatus.SUCCESSFUL, _return_value=value)


def _failed(result: TaskResult, error: BaseException) -> TaskResult:
    from traceback import format_exception

    errors = [told(error, "".join(format_exception(error)))]
    return _ended(result, TaskResultStatus.FAILED, errors=errors)


def _ended(result: TaskResult, status: TaskResultStatus, **known: Any) -> TaskResult:
    """Django's results are frozen, and changed in this way by Django itself."""
    for name, value in {"status": status, "finished_at": timezone.now(), **known}.items():
        object.__setattr__(result, name, value)
    return result
