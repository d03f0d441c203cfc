"""A call that runs here and now, and ends as it would in a worker: `task.apply()`, all calls with
`task_always_eager`, and what a full queue refused, or what is less than to publish it (see `penstock.admission`).

The worker's own code runs it and decides. What differs has to: nothing waits, there is no queue, no time limit.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec.structs import replace

from penstock.blocking import refuse_in_loop
from penstock.broker import Features
from penstock.canvas.replacing import fits
from penstock.codec import compression_of
from penstock.delivery import Delivery, RetryAt, Settlement
from penstock.eager_result import EagerResult
from penstock.errors import ConfigError, PenstockError, UnknownTask
from penstock.outcome import Report, State
from penstock.partials import Collected
from penstock.retry import Decision, GiveUp, Instead, Refuse
from penstock.worker.alone import Alone
from penstock.worker.plan import Plan, Plans
from penstock.worker.run import Runner
from penstock.worker.slot import Slot

if TYPE_CHECKING:
    from penstock.broker import Key
    from penstock.canvas.calls import Canvas
    from penstock.clock import Clock
    from penstock.delivery import Receipt
    from penstock.message import Message
    from penstock.outcome import Outcome
    from penstock.task import Task

R = TypeVar("R")

_log = logging.getLogger("penstock.client")

MOST = 10_000
"""Tries of one call, after which it is taken for endless: here nothing waits between them."""


def apply(
    task: Task[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> EagerResult[R]:
    if task.is_coroutine:
        refuse_in_loop("apply()", "await task.aapply()")
    return run(task, task.app.client.prepare(task, args, kwargs, options))


async def aapply(
    task: Task[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> EagerResult[R]:
    return await arun(task, task.app.client.prepare(task, args, kwargs, options))


def run(task: Task[..., R] | None, message: Message) -> EagerResult[R]:
    """Run `message` to its end. Raises `UnknownTask` when it is not registered here, `RuntimeError` when it is retried
    without end, and with `task_eager_propagates` what the task raised."""
    eager = EagerRun(_registered(task, message), message)
    _run(eager)
    for outcome in eager.to_store():
        results = eager.task.app.results
        results.run(results.backend.store([(eager.id, outcome)]))
    return eager.raising()


def _run(eager: EagerRun) -> None:
    while eager.report is None:
        if eager.task.is_coroutine:
            refuse_in_loop("a coroutine task that runs where it is called", "await task.adelay()")
        eager.settled(eager.alone.run(eager.delivery, _always))


async def arun(task: Task[..., R] | None, message: Message) -> EagerResult[R]:
    """`run` on the running loop."""
    eager = EagerRun(_registered(task, message), message)
    while eager.report is None:
        eager.settled(await eager.alone.arun(eager.delivery, _always))
    for outcome in eager.to_store():
        results = eager.task.app.results
        await results.arun(results.backend.store([(eager.id, outcome)]))
    return eager.raising()


def run_here(task: Task[..., R], message: Message) -> EagerResult[R]:
    """Run a call in the place of a worker: errors of the task are in the result, and how it ended is stored where a
    worker would have stored it."""
    eager = EagerRun(task, message, stored=task.app.keeps_results)
    _run(eager)
    results = task.app.results
    for outcome in eager.to_store():
        try:
            results.run(results.backend.store([(eager.id, outcome)]))
        except PenstockError as error:
            _log_unstored(eager, error)
    return eager.result()


async def arun_here(task: Task[..., R], message: Message) -> EagerResult[R]:
    """`run_here` without blocking the running loop: a plain function runs on a thread of its own."""
    if not task.is_coroutine:
        import asyncio  # who awaits has loaded it

        return await asyncio.to_thread(run_here, task, message)
    eager = EagerRun(task, message, stored=task.app.keeps_results)
    while eager.report is None:
        eager.settled(await eager.alone.arun(eager.delivery, _always))
    results = task.app.results
    for outcome in eager.to_store():
        try:
            await results.arun(results.backend.store([(eager.id, outcome)]))
        except PenstockError as error:
            _log_unstored(eager, error)
    return eager.result()


def _log_unstored(eager: EagerRun, error: PenstockError) -> None:
    # It has run: an error now would have it called again.
    _log.warning("the result of %s[%s], which ran here, could not be stored: %s", eager.task.name, eager.id, error)


def run_after_commit(task: Task[..., R] | None, message: Message, connection: object | None) -> EagerResult[R]:
    """`run` right after the transaction of `connection` has committed."""
    from penstock.on_commit import after_commit

    registered = _registered(task, message)
    result: EagerResult[R] = EagerResult(None, app=registered.app, task=registered)
    if message.id is not None:
        result.published_as(message.id)

    def called() -> None:
        result.ended_as(run(registered, message))

    async def acalled() -> None:
        result.ended_as(await arun(registered, message))

    after_commit(connection, called, acalled)
    return result


def _registered(task: Task[..., R] | None, message: Message) -> Task[..., R]:
    if task is None:
        raise UnknownTask(
            f"task_always_eager=True runs calls here, and no task {message.task!r} is registered here: import the "
            "module that defines it"
        )
    return task


def _always(_slot: Slot, _delivery: Delivery) -> bool:
    return True


class EagerRun:
    """One call, run until it has ended. `report` is there then."""

    def __init__(self, task: Task[..., Any], message: Message, stored: bool | None = None) -> None:
        """`stored`: how it ended is to be; `None`: as the settings say."""
        app = task.app
        self.task, self._message = task, message
        self._stored = app.conf.task_store_eager_result and app.keeps_results if stored is None else stored
        self.id = message.id or (app.backend.mint() if self._stored else None) or uuid.uuid4().hex
        self._ignored = app.client.ignores_result(task, message)
        self._plans = Plans(app)
        self._tries = 0
        self._plan(task)
        self._runner = EagerRunner(self._plans, NoBroker(), "eager", app.clock)
        self.alone = Alone(self._runner, app.clock)
        self.delivery = Delivery((self.id,), self.id, message)
        self.report: Report | None = None

    def _plan(self, task: Task[..., Any]) -> None:
        # Whoever called holds the result, and may look at it: it is never ignored, and no engine is asked.
        self._plans[task.name] = Plan(task, task.app.running, ignore_result=False, keeps_results=False)

    def settled(self, settlement: Settlement | None) -> None:
        """Go on with the next try, or report the end."""
        assert settlement is not None  # nothing keeps an eager call from running
        verdict, outcome = settlement.verdict, settlement.outcome
        if isinstance(verdict, RetryAt) and verdict.message is not None:
            self._tries += 1
            if self._tries > MOST:
                raise RuntimeError(
                    f"{self.task.name} was retried {MOST:,} times, and wants to be again: where nothing waits it needs "
                    "an end, such as max_retries=3"
                )
            self._message = verdict.message
            self.delivery = Delivery((self.id,), self.id, verdict.message)
            if verdict.message.task != self.task.name:  # another stands in its place
                self.task = self.task.app.tasks[verdict.message.task]
                self._plan(self.task)
            return
        state = State.SUCCESS if outcome is None else outcome.state
        name, queue, retries = self.task.name, str(self._message.queue), self._message.retries
        self.report = Report(self.id, state, outcome, name, queue, retries, "eager")

    def to_store(self) -> list[Outcome]:
        """The end as it leaves this process; none, where nobody wants it kept."""
        outcome = self.report.outcome if self.report is not None else None
        if outcome is None or not self._stored or self._ignored:
            return []
        if outcome.state is not State.SUCCESS:
            return [outcome]
        app = self.task.app
        value, content_type = app.pipeline.result_out(
            self.id, outcome.value, outcome.content_type, compression_of(app.conf.result_compression)
        )
        return [replace(outcome, value=value, content_type=content_type)]

    def result(self) -> EagerResult[Any]:
        return EagerResult(self.report, app=self.task.app, task=self.task, parts=self._runner.collected.parts)

    def raising(self) -> EagerResult[Any]:
        """`result`; raises what it failed with, where the settings say so."""
        result = self.result()
        if self._runner.error is not None and self.task.app.conf.task_eager_propagates:
            raise self._runner.error
        return result


class EagerRunner(Runner):
    """Decides as a worker does, for a call that nobody else could run later."""

    error: BaseException | None = None
    """What the call failed with."""

    def __init__(self, plans: Plans, broker: NoBroker, worker: str, clock: Clock) -> None:
        super().__init__(plans, broker, worker, clock)
        self.collected = Collected()

    def prepare(self, slot: Slot, delivery: Delivery, now: float) -> Settlement | None:
        settlement = super().prepare(slot, delivery, now)
        if settlement is None:
            slot.request.is_eager = True
            slot.request.sink, self.collected.run = self.collected, slot.request.run
        return settlement

    def decided(
        self, slot: Slot, delivery: Delivery, decision: Decision, error: BaseException, now: float
    ) -> Settlement:
        if isinstance(decision, Refuse):
            # Back in a queue, another worker might take it; here it would spin.
            decision = Refuse(decision.reason, requeue=False)
            self.error = error
        elif isinstance(decision, GiveUp):
            self.error = decision.error
        elif isinstance(decision, Instead) and not fits(cast("Canvas[Any]", decision.call)):
            refused = ConfigError("a canvas in the place of a task needs a worker, as every canvas does")
            return self.decided(slot, delivery, GiveUp(refused, False), refused, now)
        return super().decided(slot, delivery, decision, error, now)


class NoBroker:
    """What a run has to tell a broker, where there is none."""

    features = Features("eager", atomic_settle=True, max_batch=1, effects=frozenset(), guards=frozenset())

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        """There is no worker whose death could be blamed on it."""

    def public_id(self, key: Key) -> str:
        return str(key)
