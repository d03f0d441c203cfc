"""The backend of Django's own tasks keeps what Django documents of one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

if sys.version_info < (3, 12):
    pytest.skip(
        "NOT TESTED: Django 6, whose tasks these are, needs Python 3.12; `make test-3.12` runs them",
        allow_module_level=True,
    )

from django.conf import settings

from tests import django_project

if not settings.configured:
    django_project.set_up()

from django.core import checks
from django.tasks import TaskContext, TaskResultStatus, task, task_backends
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import override_settings

from penstock import Penstock, QueueFull
from penstock.contrib.django import CloseConnections
from penstock.contrib.django.backend import priority_of
from penstock.contrib.rehearsal import Rehearsal, rehearse

MODULE = __name__
BACKEND = "penstock.contrib.django.PenstockBackend"


def tasks(**options: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": BACKEND, "QUEUES": ["default", "mail"], "OPTIONS": options}}


def double(number: int) -> int:
    return number * 2


async def later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def attempt(context: TaskContext, word: str) -> list[Any]:
    return [context.attempt, context.task_result.status, context.task_result.args, word]


def fail() -> None:
    raise LookupError("nothing there")


def flaky(context: TaskContext) -> int:
    if context.attempt == 1:
        raise ConnectionError("away")
    return context.attempt


def size(text: str) -> int:
    return len(text)


async def size_later(text: str) -> int:
    return len(text)


def fit() -> object:
    return object()


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    settings_of_tasks = {f"{MODULE}.flaky": {"autoretry_for": (ConnectionError,), "default_retry_delay": 5}}
    app = Penstock("shop", task_queues=["mail"], running=[CloseConnections()], task_annotations=settings_of_tasks)
    monkeypatch.setitem(sys.modules, "shop_of_tests", SimpleNamespace(app=app, word="app"))
    with override_settings(TASKS=tasks(app="shop_of_tests:app")), rehearse(app) as rehearsal:
        yield rehearsal


def test_a_task_runs_and_its_result_is_read(queue: Rehearsal) -> None:
    doubled = task(double)
    result = doubled.enqueue(21)
    assert (result.status, result.args, result.kwargs, result.backend) == (TaskResultStatus.READY, [21], {}, "default")
    assert result.enqueued_at is not None and len(result.id) < 64
    enqueued_at = result.enqueued_at
    with pytest.raises(ValueError, match="not finished"):
        result.return_value  # noqa: B018
    result.refresh()
    assert (result.status, result.enqueued_at) == (TaskResultStatus.READY, enqueued_at)
    queue.run_all()
    assert not result.is_finished
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (TaskResultStatus.SUCCESSFUL, 42, 1)
    found = doubled.get_result(result.id)
    assert (found.args, found.return_value, found.task.func, found.errors) == ([21], 42, double, [])
    assert found.enqueued_at <= found.started_at <= found.finished_at


def test_a_task_of_the_app_goes_by_the_module_path(queue: Rehearsal) -> None:
    task(double).enqueue(number=4)
    (ran,) = queue.run_all()
    assert (ran.task, ran.args, ran.kwargs) == (f"{MODULE}.double", (), {"number": 4})


def test_coroutines_are_enqueued_and_run(queue: Rehearsal) -> None:
    async def calls() -> Any:
        return await task(later).aenqueue(1)

    result = asyncio.run(calls())
    queue.run_all()

    async def looks() -> Any:
        await result.arefresh()
        return await task(later).aget_result(result.id)

    assert asyncio.run(looks()).return_value == result.return_value == 2


def test_errors_are_told(queue: Rehearsal) -> None:
    result = task(fail).enqueue()
    queue.run_all()
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    (error,) = result.errors
    assert error.exception_class is LookupError
    assert "nothing there" in error.traceback and "in fail" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        result.return_value  # noqa: B018


def test_a_revoked_task_has_failed(queue: Rehearsal) -> None:
    result = task(double).enqueue(1)
    queue.app.AsyncResult(result.id).revoke()
    result.refresh()
    assert (result.status, result.errors[0].exception_class.__name__) == (TaskResultStatus.FAILED, "TaskRevoked")


def test_context_and_attempts(queue: Rehearsal) -> None:
    result = task(takes_context=True)(attempt).enqueue("hello")
    queue.run_all()
    result.refresh()
    assert result.return_value == [1, "RUNNING", ["hello"], "hello"]
    again = task(takes_context=True)(flaky).enqueue()
    queue.run_all()
    again.refresh()
    assert (again.status, again.attempts, again.errors) == (TaskResultStatus.READY, 1, [])
    queue.run_to_end()
    again.refresh()
    assert (again.return_value, again.attempts) == (2, 2)
    assert again.last_attempted_at > again.started_at


@pytest.mark.parametrize("function", [size, size_later])
def test_large_arguments_are_run_and_not_shown(queue: Rehearsal, function: Any) -> None:
    result = task(function).enqueue("x" * (5 << 20))
    queue.run_all()
    found = task(function).get_result(result.id)
    assert (found.return_value, found.attempts, found.args) == (5 << 20, 1, [])


def test_queue_priority_and_time(queue: Rehearsal) -> None:
    start = datetime.fromtimestamp(queue.app.clock.time(), UTC) + timedelta(hours=1)
    result = task(queue_name="mail")(double).using(priority=100, run_after=start).enqueue(1)
    assert queue.run_all() == []
    (waiting,) = queue.app.engine.run(queue.app.engine.inspect.peek("mail"))
    assert waiting.message is not None and waiting.message.eta == start.timestamp()
    assert (waiting.id, waiting.message.priority) == (result.id, 9)


def test_priorities_keep_their_order() -> None:
    found = [priority_of(one) for one in range(-100, 101)]
    assert found == sorted(found)
    assert {one: priority_of(one) for one in (-100, -1, 0, 1, 100)} == {-100: 0, -1: 4, 0: 5, 1: 6, 100: 9}


def test_signals_are_sent(queue: Rehearsal) -> None:
    seen: list[tuple[str, str]] = []

    def enqueued(task_result: Any, **_: Any) -> None:
        seen.append(("enqueued", task_result.status))

    def started(task_result: Any, **_: Any) -> None:
        seen.append(("started", task_result.status))

    def finished(task_result: Any, **_: Any) -> None:
        seen.append(("finished", task_result.status))

    # Receivers are held weakly, and gone after the test.
    task_enqueued.connect(enqueued)
    task_started.connect(started)
    task_finished.connect(finished)
    task(double).enqueue(1)
    task(fail).enqueue()
    queue.run_all()
    ran = [("started", "RUNNING"), ("finished", "SUCCESSFUL"), ("started", "RUNNING"), ("finished", "FAILED")]
    assert seen == [("enqueued", "READY"), ("enqueued", "READY"), *ran]


def test_what_is_wrong_is_refused(queue: Rehearsal) -> None:
    with pytest.raises(InvalidTask, match="module level"):
        task(lambda: None)
    with pytest.raises(InvalidTask, match="priority"):
        task(priority=101)(double)
    with pytest.raises(InvalidTask, match="'other' is not valid"):
        task(queue_name="other")(double)
    with pytest.raises(TypeError):
        task(double).enqueue(object())
    queue.app.task(name=f"{MODULE}.fail")(fail)
    with pytest.raises(InvalidTask, match="of its own"):
        task(fail)
    unfit = task(fit).enqueue()
    queue.run_all()
    unfit.refresh()
    assert unfit.errors[0].exception_class is TypeError


def test_a_full_queue_is_told(queue: Rehearsal) -> None:
    from penstock import Queue

    with queue.app.redirected(broker_url="memory://", task_queues=[Queue("mail", max_length=1)]):
        mail = task(queue_name="mail")(double)
        mail.enqueue(1)
        with pytest.raises(QueueFull):
            mail.enqueue(2)


def test_results_of_others_are_not_given(queue: Rehearsal) -> None:
    native = queue.app.task(name="native")(lambda: 1).delay()
    queue.run_all()
    for unknown in (native.id, "", "x" * 500, "\n", "0" * 32):
        with pytest.raises(TaskResultDoesNotExist):
            task_backends["default"].get_result(unknown)
    result = task(double).enqueue(1)
    with pytest.raises(TaskResultMismatch):
        task(fail).get_result(result.id)


def test_checks(queue: Rehearsal) -> None:
    assert [one for one in checks.run_checks() if str(one.id).startswith("penstock")] == []
    sys.modules["shop_of_tests"].app = Penstock("bare")
    assert [one.id for one in task_backends["default"].check()] == ["penstock.W001", "penstock.W002"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs to know your app"),
        ({"app": "shop_of_tests:app", "broker": "x"}, "no option 'broker'"),
        ({"app": "nowhere:app"}, "no module 'nowhere'"),
        ({"app": "shop_of_tests:ap"}, "did you mean"),
        ({"app": "shop_of_tests:word"}, "no Penstock app"),
    ],
)
def test_wrong_options_are_told(queue: Rehearsal, options: dict[str, Any], why: str) -> None:
    with override_settings(TASKS=tasks(**options)), pytest.raises(InvalidTaskBackend, match=why):
        task(double)
