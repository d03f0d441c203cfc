"""All that a run needs to know of its task, looked up once instead of once per run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.delivery import Delivery
from penstock.message import Options
from penstock.middleware import Running
from penstock.partials import check_streams
from penstock.pool import Traits

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.task import Task


class Plan:
    """How to run one task. Immutable by convention."""

    __slots__ = (
        "arguments",
        "concluding",
        "content_type",
        "early",
        "encode_result",
        "expected",
        "function",
        "hard",
        "hooks",
        "ignore_result",
        "is_coroutine",
        "keeps_results",
        "max_attempts",
        "middleware",
        "name",
        "policy",
        "simple",
        "soft",
        "task",
    )

    def __init__(
        self, task: Task[..., Any], middleware: Sequence[Running], *, keeps_results: bool, ignore_result: bool
    ) -> None:
        options = task.options
        self.task = task
        self.name = task.name
        self.function: Callable[..., Any] = task.run
        self.is_coroutine = task.is_coroutine
        # The codec is made now: a mistake in an annotation is found when the worker starts.
        self.arguments = task.codec.decode
        self.encode_result = task.encode_result
        self.content_type = task.result_format.name
        self.policy = task.policy
        self.max_attempts = options.max_attempts
        self.early = not options.acks_late
        self.keeps_results = keeps_results
        self.ignore_result = ignore_result
        self.soft = options.soft_time_limit
        self.hard = options.time_limit
        self.expected = options.expected
        self.hooks = task.hooks
        self.middleware = middleware
        self._derive()

    @classmethod
    def of(cls, task: Task[..., Any], app: Penstock) -> Plan:
        """The plan of a worker of `app`."""
        keeps = app.keeps_results
        ignore = bool(task.options.ignore_result) or not keeps
        if task.is_generator and not ignore:
            check_streams(app)
        return cls(task, app.running, keeps_results=keeps, ignore_result=ignore)

    def _derive(self) -> None:
        self.concluding = bool(self.hooks & {"on_success", "after_return"})
        limited = self.soft is not None or self.hard is not None
        dressed = bool(self.middleware) or "before_start" in self.hooks
        self.simple = not (self.is_coroutine or self.early or limited or dressed)

    def unkept(self, traits: Traits) -> str | None:
        """Which time limit a pool of these traits cannot keep for this task, as part of a sentence."""
        if self.is_coroutine and traits.coroutine_limit:
            return None
        for option, value, kept in (
            ("time_limit", self.hard, traits.hard_limit),
            ("soft_time_limit", self.soft, traits.soft_limit),
        ):
            if value is not None and not kept:
                return f"{option}={value:g}, which for a plain function the {traits.name} pool"
        return None

    def bound(self, delivery: Delivery, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """The call inside its middleware. Of a coroutine function it returns the coroutine."""
        call = partial(self.function, *args, **kwargs)
        for middleware in reversed(self.middleware):
            call = partial(middleware, delivery, call)
        return call

    def under(self, options: Options) -> Plan:
        """The plan for a message that carries options of its own."""
        if (
            options.time_limit is None
            and options.soft_time_limit is None
            and options.ignore_result is None
            and options.max_attempts is None
        ):
            return self
        given = {
            "soft": options.soft_time_limit,
            "hard": options.time_limit,
            "ignore_result": options.ignore_result if self.keeps_results else None,
            "max_attempts": options.max_attempts,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        if not changes:
            return self
        copy = object.__new__(Plan)
        for name in Plan.__slots__:
            setattr(copy, name, changes.get(name, getattr(self, name)))
        copy._derive()
        return copy


class Plans(dict[str, Plan]):
    """Plans by task name, made when first asked for; `None` for a task that is not registered."""

    def __init__(self, app: Penstock) -> None:
        self._app = app

    def of(self, name: str) -> Plan | None:
        plan = self.get(name)
        if plan is None:
            task = self._app.runnable(name)
            if task is None:
                return None
            plan = self[name] = Plan.of(task, self._app)
        return plan
