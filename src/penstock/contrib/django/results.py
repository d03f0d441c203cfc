"""What Django shows of a task, from what Penstock knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.tasks import Task, TaskResult, TaskResultStatus
from django.tasks.base import TaskError

from penstock.codec.failures import read_failure
from penstock.contrib.django.running import EARLIER, Begun, aware, told
from penstock.errors import ResultError
from penstock.outcome import Report, State
from penstock.result import AsyncResult

STATUS: Mapping[State, TaskResultStatus] = MappingProxyType(
    {
        State.PENDING: TaskResultStatus.READY,
        State.RETRY: TaskResultStatus.READY,
        State.STARTED: TaskResultStatus.RUNNING,
        State.SUCCESS: TaskResultStatus.SUCCESSFUL,
        State.FAILURE: TaskResultStatus.FAILED,
        State.REVOKED: TaskResultStatus.FAILED,
    }
)


class PenstockResult(TaskResult):
    """A result whose `refresh` does not forget when it was enqueued: before a task starts, only its caller knows."""

    __slots__ = ()

    def refresh(self) -> None:
        known = self.enqueued_at
        super().refresh()
        self._keep(known)

    async def arefresh(self) -> None:
        known = self.enqueued_at
        await super().arefresh()
        self._keep(known)

    def _keep(self, enqueued_at: Any) -> None:
        if self.enqueued_at is None:
            object.__setattr__(self, "enqueued_at", enqueued_at)


def enqueued(task: Task, task_id: str, args: list[Any], kwargs: dict[str, Any], now: float) -> PenstockResult:
    """The result of a task that was published just now."""
    return _result(task, task_id, TaskResultStatus.READY, enqueued_at=aware(now), args=args, kwargs=kwargs)


def looked_up(task: Task, result: AsyncResult[Any], report: Report, runs: Sequence[Begun]) -> PenstockResult:
    """`runs` are those whose beginnings are kept, the oldest first."""
    known: dict[str, Any] = {}
    if runs:
        first, last = runs[0], runs[-1]
        known = {"args": last.args, "kwargs": last.kwargs, "enqueued_at": aware(first.enqueued)}
        known |= {"started_at": aware(first.started), "last_attempted_at": aware(last.started)}
        known["worker_ids"] = [run.worker for run in runs]
    elif report.worker is not None:
        known["worker_ids"] = [EARLIER] * report.retries + [report.worker]
    outcome = report.outcome
    if outcome is not None:
        known["finished_at"] = aware(outcome.done)
        known.setdefault("started_at", aware(outcome.done - outcome.runtime))
    status = STATUS[report.state]
    if status == TaskResultStatus.FAILED:
        known["errors"] = [_error(result, report)]
    found = _result(task, report.id, status, **known)
    if status == TaskResultStatus.SUCCESSFUL:
        object.__setattr__(found, "_return_value", result.result)
    return found


def _error(result: AsyncResult[Any], report: Report) -> TaskError:
    """The class is named as the worker saw it; Django imports it when somebody asks for the class."""
    if report.state is State.FAILURE and report.outcome is not None and report.outcome.value:
        stored = read_failure(report.outcome.value)
        return TaskError(exception_class_path=f"{stored.module}.{stored.type}", traceback=stored.traceback)
    error = result.result or ResultError(f"task {report.id} failed; its error was not stored")
    return told(error, f"{type(error).__name__}: {error}")


def _result(task: Task, task_id: str, status: TaskResultStatus, **known: Any) -> PenstockResult:
    nothing: dict[str, Any] = dict.fromkeys(("enqueued_at", "started_at", "finished_at", "last_attempted_at"))
    nothing |= {"args": [], "kwargs": {}, "errors": [], "worker_ids": []}
    return PenstockResult(task=task, id=task_id, status=status, backend=task.backend, **{**nothing, **known})
