"""A backend of Django's tasks that publishes them to Penstock.

    TASKS = {"default": {"BACKEND": "penstock.contrib.django.PenstockBackend", "OPTIONS": {"app": "shop.queue:app"}}}

Each task of Django's becomes one of the app, under its module path, when its decorator runs. So a worker runs what it
has imported, and nothing that a message names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import iscoroutinefunction
from math import ceil
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.tasks import Task, TaskResult
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone
from django.utils.json import normalize_json
from msgspec import convert

from penstock import apart
from penstock.contrib.django.connections import CloseConnections
from penstock.contrib.django.results import enqueued, looked_up
from penstock.contrib.django.running import AwaitedRun, Begun, Run, keeps_parts
from penstock.errors import ConfigError
from penstock.importing import named
from penstock.message import HIGHEST, LOWEST, NORMAL
from penstock.outcome import Parts, Report, State
from penstock.result import AsyncResult
from penstock.stream import PAGE, parts_of, value_of

if TYPE_CHECKING:
    from penstock.app import Penstock

OPTIONS = frozenset({"app"})
MOST = 100
"""The highest priority of Django, and, below zero, the lowest."""


class PenstockBackend(BaseTaskBackend):
    """`OPTIONS["app"]` names the app, "module:attribute". `QUEUES` are the queues that tasks may go to, as Django has
    it. Raises `InvalidTaskBackend` for options that are wrong."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        strange = self.options.keys() - OPTIONS
        if strange or "app" not in self.options:
            what = f"has no option {min(strange)!r}" if strange else "needs to know your app"
            raise InvalidTaskBackend(
                f'TASKS[{alias!r}]: penstock {what}; write "OPTIONS": {{"app": "module:app"}}, and settings as '
                "PENSTOCK_…, see config_from_object(…, namespace='PENSTOCK')"
            )

    @property
    def app(self) -> Penstock:
        """Imported when it is needed: its module may be imported by the one that declares tasks."""
        from penstock.app import Penstock

        try:
            found = named(self.options["app"])
        except ConfigError as error:
            raise InvalidTaskBackend(f"TASKS[{self.alias!r}]: {error}") from error
        if not isinstance(found, Penstock):
            raise InvalidTaskBackend(f"TASKS[{self.alias!r}]: {self.options['app']!r} is no Penstock app")
        return found

    def validate_task(self, task: Task) -> None:
        """Django's rules. Who declares a task comes here, so that the app learns of it here, too."""
        super().validate_task(task)
        self._registered(task)

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Raises `TypeError` for arguments that are not JSON, and what `apply_async` does: `QueueFull`,
        `BrokerUnavailable`; then nothing was enqueued."""
        self.validate_task(task)
        positional, by_name = normalize_json(list(args)), normalize_json(dict(kwargs))
        sent = self._registered(task).apply_async(positional, by_name, **_options(task))
        result = enqueued(task, sent.id, positional, by_name, self.app.clock.time())
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """`enqueue` without blocking the running loop."""
        self.validate_task(task)
        positional, by_name = normalize_json(list(args)), normalize_json(dict(kwargs))
        sent = await self._registered(task).aapply_async(positional, by_name, **_options(task))
        result = enqueued(task, sent.id, positional, by_name, self.app.clock.time())
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Raises `TaskResultDoesNotExist` also for an id that belongs to no task of Django's."""
        found = self._result(result_id)
        report = found.report()
        task = self._task(report)
        runs = _runs(found, apart.drive(parts_of(found, 0, PAGE))) if keeps_parts(self.app) else []
        return looked_up(task, found, report, runs)

    async def aget_result(self, result_id: str) -> TaskResult:
        """`get_result` without blocking the running loop."""
        found = self._result(result_id)
        report = await found.areport()
        task = self._task(report)
        runs = _runs(found, await apart.adrive(parts_of(found, 0, PAGE))) if keeps_parts(self.app) else []
        return looked_up(task, found, report, runs)

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """What `manage.py check` says of this backend."""
        app = self.app
        found: list[checks.CheckMessage] = []
        for queue in sorted(self.queues - {queue.name for queue in app.conf.queues}):
            what = f"TASKS[{self.alias!r}]: queue {queue!r} is not declared in app {app.name!r}"
            hint = "Add it to task_queues: workers serve declared queues, and those of declared tasks."
            found.append(checks.Warning(what, hint, id="penstock.W001"))
        if not any(isinstance(one, CloseConnections) for one in app.running):
            what = f"app {app.name!r} does not close old database connections around tasks"
            hint = "Penstock(…, running=[CloseConnections()]), from penstock.contrib.django."
            found.append(checks.Warning(what, hint, id="penstock.W002"))
        return found

    def _registered(self, task: Task) -> Any:
        """The app's own task for this one."""
        app, name = self.app, task.module_path
        known = app.tasks.get(name)
        if known is None:
            run = (AwaitedRun if iscoroutinefunction(task.func) else Run)(task, type(self))
            return app.task(name=name, bind=True, queue=task.queue_name)(run)
        if not isinstance(known.function, Run):
            raise InvalidTask(f"app {app.name!r} has a task {name!r} of its own: give that one another name")
        return known

    def _result(self, result_id: str) -> AsyncResult[Any]:
        try:
            return self.app.AsyncResult(result_id)
        except ConfigError as error:
            raise TaskResultDoesNotExist(result_id) from error

    def _task(self, report: Report) -> Task:
        known = self.app.tasks.get(report.task or "")
        if report.state is State.UNKNOWN or known is None or not isinstance(known.function, Run):
            raise TaskResultDoesNotExist(report.id)
        return known.function.task


def priority_of(priority: int) -> int:
    """One of Penstock's ten for one of Django's, from -100 to 100: order is kept, and 0 is normal."""
    if priority > 0:
        return NORMAL + ceil(priority * (HIGHEST - NORMAL) / MOST)
    return NORMAL - ceil(-priority * (NORMAL - LOWEST) / MOST)


def _options(task: Task) -> dict[str, Any]:
    options: dict[str, Any] = {"queue": task.queue_name, "priority": priority_of(task.priority)}
    if task.run_after is not None:
        start = task.run_after
        options["eta"] = start if timezone.is_aware(start) else timezone.make_aware(start)
    return options


def _runs(found: AsyncResult[Any], parts: Parts) -> list[Begun]:
    return [convert(value_of(found, part), Begun) for part in parts.parts]
