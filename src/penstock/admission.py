"""What becomes of a call before, and instead of, being published, where its task or its caller says so.

- `deadline`: a call that could not start by then, for all that is known, is refused. Known is what a look at the queues
told, at most every half second; without a rate that is live, the call is let in.
- `on_full`: a call whose queue is full is refused ("raise"), is tried again (`Backoff`), always with one id, as far as
the process's budget of retries goes, or runs here ("run-inline").
- `inline_below`: a call of a task whose runs are short, as workers have sampled them lately, runs here at once.

Who says nothing of all this pays for one look at an attribute.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from penstock import apart
from penstock.broker import Answer, Full
from penstock.draining import MIN_RETRY
from penstock.errors import ConfigError, DeadlineUnmeetable, PenstockError, QueueFull
from penstock.message import Message
from penstock.on_full import RUN_INLINE, Backoff, OnFull, check_on_full
from penstock.pressure.budget import RetryBudget
from penstock.pressure.outlook import Outlook
from penstock.pressure.reports import told
from penstock.pressure.samples import merged

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.limit import TaskLimit
    from penstock.options import TaskOptions
    from penstock.task import Task

LOOK_EVERY, SHARE = 0.5, 20.0
"""Seconds between two looks at the queues, and how many times as long as the last look took: at a great many queues it
is not to be what the process does."""
SAMPLES_EVERY = 10.0
"""Seconds between two looks at the samples of workers: they tell them no more often."""
FEW_SAMPLES = 10
"""Runs, below which it is not known how long a task's take."""
TAIL = 5.0
"""A task is short when the mean of its runs is, and their deviation is not above so many times as much."""

Way = Literal["publish", "here", "cheap"]
"""What to do with a call: publish it; run it here, for want of room; run it here, as that is less than to publish
it."""
NOTHING: Mapping[str, Any] = {}


class Terms(Struct, frozen=True, gc=False):
    """What is said of one call. `deadline` in Unix time, `inline_below` in seconds."""

    on_full: OnFull
    deadline: float | None
    inline_below: float | None


class Admission:
    """For one app, in one process."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._budget: tuple[float | None, RetryBudget] | None = None
        self._outlooks: dict[str, Outlook] = {}
        self._look_at = self._samples_at = float("-inf")
        self._times: dict[str, tuple[float, float]] = {}
        """By task, the mean of its runs and their deviation, in seconds."""

    # -- what is said

    @property
    def cautious(self) -> bool:
        """Whether calls of tasks that are not known here are to be looked at; see `Task.cautious`."""
        return self._app.conf.task_on_full != "raise"

    def terms(
        self, task: Task[..., Any] | None, message: Message, said: Mapping[str, Any], within: str | None = None
    ) -> Terms | None:
        """`said` are the options of the call, `within` is what publishes it, if that is not the call itself. `None`:
        there is nothing to look at. Raises `ConfigError` for what this call cannot have."""
        asked = said.get("on_full")
        if asked is not None and within is not None:
            raise ConfigError(f"a call in {within} is not tried again by itself, nor run: leave out on_full={asked!r}")
        why = _stays(task, message) if asked == RUN_INLINE else _several(message)
        if asked not in (None, "raise") and why is not None:
            raise ConfigError(f"task {message.task!r}: on_full={asked!r} cannot be, since {why}")
        options = task.options if task is not None else None
        on_full: OnFull = asked or (self._app.conf.task_on_full if options is None else options.on_full) or "raise"
        here = within is None and _stays(task, message) is None
        if within is not None or _several(message) is not None or (on_full == RUN_INLINE and not here):
            on_full = "raise"
        dated = said.get("deadline") is not None or (
            options is not None and options.deadline is not None and said.get("expires") is None
        )
        below = options.cheap if options is not None and here else None
        if on_full == "raise" and not dated and below is None:
            return None
        return Terms(on_full, message.expires if dated else None, below)

    # -- before it is published

    def let_in(self, message: Message, terms: Terms) -> apart.Plan[Way]:
        """Raises `DeadlineUnmeetable`."""
        if terms.inline_below is not None and (yield from self._is_short(message.task, terms.inline_below)):
            return "cheap"
        # What is more urgent than others does not wait behind all of them; what is delayed waits of its own will.
        urgent = message.priority > self._app.conf.task_default_priority or message.eta is not None
        if terms.deadline is None or urgent or _several(message) is not None:
            return "publish"
        yield from self._look()
        clock, outlook = self._app.clock, self._outlooks.get(message.queue) or Outlook()
        wait, left = outlook.wait(clock.monotonic()) or 0.0, terms.deadline - clock.time()
        if wait <= left:
            return "publish"
        if terms.on_full == RUN_INLINE and left > 0:
            return "here"
        again = max(MIN_RETRY, wait - max(0.0, left))
        raise DeadlineUnmeetable(message.queue, outlook.depth, outlook.limit, again, wait, left)

    def _look(self) -> apart.Plan[None]:
        clock, engine, namespace = self._app.clock, self._app.engine, self._app.conf.namespace
        began = clock.monotonic()
        if began < self._look_at:
            return
        self._look_at = began + LOOK_EVERY  # others need not look meanwhile
        try:
            found = yield engine, engine.inspect.queues(namespace)
        except PenstockError:
            return  # who may not look is let in, and so is who meets the error again when he publishes
        now = clock.monotonic()
        self._look_at = max(self._look_at, now + SHARE * (now - began))
        known = self._outlooks
        self._outlooks = {info.name: known.get(info.name) or Outlook() for info in found}
        for info in found:
            self._outlooks[info.name].note(info, now)

    def _is_short(self, task: str, below: float) -> apart.Plan[bool]:
        yield from self._look_at_samples()
        mean, deviation = self._times.get(task, (below, 0.0))
        return mean < below and deviation <= TAIL * below

    def _look_at_samples(self) -> apart.Plan[None]:
        engine, now = self._app.engine, self._app.clock.monotonic()
        if now < self._samples_at:
            return
        self._samples_at = now + SAMPLES_EVERY
        shared = apart.shared(self._app)
        if shared is None:
            return
        try:
            reports = yield engine, told(shared, self._app.conf.namespace)
        except PenstockError:
            return
        times = merged(report.samples for report in reports.values()).of_tasks(None)
        self._times = {
            task: one.own for task, one in times.items() if one.own is not None and one.own_count >= FEW_SAMPLES
        }

    # -- when it is full

    def of_many(self, task: Task[..., Any], asked: OnFull | None) -> OnFull:
        """What becomes of the calls of one `delay_many`. Raises `ConfigError`."""
        if asked is None:
            return task.options.on_full or "raise"
        check_on_full("on_full", asked)
        why = _bound(task.options, task.limit) if asked == RUN_INLINE else None
        if why is not None:
            raise ConfigError(f"task {task.name!r}: on_full={asked!r} cannot be, since {why}")
        return asked

    def published_many(
        self, task: Task[..., Any], messages: Sequence[Message], on_full: OnFull
    ) -> apart.Plan[Sequence[Answer]]:
        """`published`, after a look at the deadline, if their task has one: that of the first is that of all."""
        if task.options.deadline is not None:
            terms = self.terms(task, messages[0], {}, "delay_many")
            if terms is not None:
                yield from self.let_in(messages[0], terms)
        return (yield from self.published(messages, on_full))

    def runs_here(self, task: Task[..., Any] | None, message: Message, answer: Answer, on_full: OnFull) -> bool:
        """Whether a call runs here for want of room."""
        return on_full == RUN_INLINE and type(answer) is Full and _stays(task, message) is None

    def published(self, messages: Sequence[Message], on_full: OnFull | None) -> apart.Plan[Sequence[Answer]]:
        """The answers of the last try. Raises `QueueFull` when the budget is spent."""
        app, client = self._app, self._app.client
        engine, began = client.engine_of(messages), app.clock.monotonic()
        answers: list[Answer] = list((yield engine, client.publish(messages)))
        if not isinstance(on_full, Backoff):
            return answers
        part, budget = self._retries()
        budget.published(began)
        tries = 1
        while full := next((one for one in answers if isinstance(one, Full)), None):
            spent = app.clock.monotonic() - began
            pause = on_full.pause(tries, full.retry_after, spent, random.random())
            never = full.unit == "tasks" and len(messages) > full.limit
            if never or pause is None:
                break
            if not budget.spend(app.clock.monotonic()):
                why = f"not tried again: this process has spent its retries, publish_retry_budget={part:g}"
                raise QueueFull(full.queue, full.depth, full.limit, full.retry_after, full.unit, why=why)
            left = [place for place, one in enumerate(answers) if isinstance(one, Full)]
            again = [messages[place] for place in left]
            client.name(again)
            yield apart.Pause(pause)
            for place, answer in zip(left, (yield engine, client.publish(again)), strict=True):
                answers[place] = answer
            tries += 1
        return answers

    def _retries(self) -> tuple[float | None, RetryBudget]:
        part = self._app.conf.publish_retry_budget
        if self._budget is None or self._budget[0] != part:
            self._budget = part, RetryBudget(part)
        return self._budget


def check_here(name: str, options: TaskOptions) -> None:
    """Raise `ConfigError` for a task that is to run where it is called, and cannot."""
    option = f"inline_below={options.inline_below!r}" if options.inline_below is not None else ""
    option = option or (f"on_full={RUN_INLINE!r}" if options.on_full == RUN_INLINE else "")
    why = _bound(options, options.limit()) if option else None
    if why is not None:
        raise ConfigError(f"task {name!r}: {option} runs calls where they are made, and {why}: leave out one of them")


def _bound(options: TaskOptions, limit: TaskLimit | None) -> str | None:
    """Why no call of a task can run where it is made."""
    if options.unique is not False:
        return "unique is kept by the queue"
    if limit is not None:
        return "rate_limit and concurrency_limit are kept by the queue"
    for option in ("time_limit", "soft_time_limit"):
        if getattr(options, option) is not None:
            return f"nothing keeps {option}={getattr(options, option):g} there"
    return None


def _stays(task: Task[..., Any] | None, message: Message) -> str | None:
    """Why a call cannot run where it is made."""
    if task is None:
        return "no task of that name is registered here"
    limited = message.options is not None and (message.options.time_limit or message.options.soft_time_limit)
    if message.guards or limited:
        return "its unique key, limits or time limits are kept by queues and workers only"
    if message.eta is not None:
        return "it is to run later"
    return _bound(task.options, task.limit) or _several(message)


def _several(message: Message) -> str | None:
    """Why a call cannot be tried again: what was let in of it would be there twice."""
    return None if type(message.queue) is str else f"it goes to several queues ({message.queue!s})"
