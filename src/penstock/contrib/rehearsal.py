"""An app in a test: on a queue in memory, by a clock that stands still, its tasks run when the test says so."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

from msgspec import Struct

from penstock.beat.beat import Beat
from penstock.blocking import refuse_in_loop
from penstock.broker import Demand, Peeked
from penstock.contrib.clock import TravelClock
from penstock.contrib.enqueued import Enqueued, Expectation, Wanted, read, report
from penstock.coordinator import WorkerInfo
from penstock.delivery import Dead, Delivery, RetryAt, Settlement
from penstock.message import Limit, Message
from penstock.outcome import State
from penstock.queue import QueueInfo
from penstock.worker.alone import Alone
from penstock.worker.crew import committer_of
from penstock.worker.early import early_of
from penstock.worker.graphs import Graphs
from penstock.worker.packing import runner_of
from penstock.worker.plan import Plans
from penstock.worker.settings import WorkerOptions
from penstock.worker.slot import Slot

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.config import Settings
    from penstock.task import Task

LEASE = 10 * 365 * 86_400.0
"""Seconds: however far a test moves the clock, no worker is taken for dead over it."""
IN_MEMORY: Mapping[str, Any] = MappingProxyType(
    {"broker_url": "memory://", "result_backend": None, "durability": None, "lease": LEASE}
)
"""The settings of an app in a test."""
MOST = 10_000
"""Runs of one `run_all`, after which it is taken for endless."""
SHORTEST = 0.001
"""Seconds that pass at least between two turns of a beat."""
LOOK = 1_000_000
"""Waiting calls that are looked at, of a queue."""


class Ran(Struct, frozen=True):
    """One run of a task. `state` is SUCCESS, FAILURE, REVOKED, or RETRY; `reason` is why it is a dead letter."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: State
    task_id: str
    reason: str | None = None


@contextmanager
def rehearse(app: Penstock, clock: TravelClock | None = None, **settings: Unpack[Settings]) -> Iterator[Rehearsal]:
    """An app in memory for the time of the block, and what is in its queues."""
    clock = clock or TravelClock()
    with in_memory(app, clock, **settings):
        yield Rehearsal(app, clock)


def in_memory(app: Penstock, clock: TravelClock, **settings: Unpack[Settings]) -> AbstractContextManager[Penstock]:
    """Redirect `app` to a queue in memory for the time of the block (see `Penstock.redirected`)."""
    chosen: Any = {**IN_MEMORY, **settings}
    return app.redirected(clock, **chosen)


class Rehearsal:
    """Looks at an app's queues, and runs what is in them on the calling thread, one task after the other.

    It decides, settles and stores as a worker does, by the same code. Time limits are not enforced.
    """

    def __init__(self, app: Penstock, clock: TravelClock) -> None:
        """`clock` is the app's."""
        self.app, self.clock = app, clock
        self._beat: Beat | None = None
        # Made late, since it opens the engine; but who broadcasts must find somebody signed on.
        self._worker: _Inline | None = _Inline(app) if app.conf.broadcasts else None

    # -- running

    def run_all(self) -> list[Ran]:
        """Run what is ready, and what that makes ready, until nothing is; what is due later stays. Raises
        `RuntimeError` after 10,000 runs, and `BlockingCallInLoop` in a running loop."""
        ran = []
        while (one := self.run_one()) is not None:
            ran.append(one)
            if len(ran) >= MOST:
                raise RuntimeError(
                    f"{MOST:,} runs, and more is ready, such as {one.task!r}: does a task call itself without end?"
                )
        return ran

    def run_one(self) -> Ran | None:
        """Run the next task that is ready; `None` when none is."""
        refuse_in_loop("running tasks here", "await penstock_tasks.arun_all()")
        if self._worker is None:
            self._worker = _Inline(self.app)
        return self._worker.run_one()

    def run_to_end(self, within: float = 86_400.0) -> list[Ran]:
        """`run_all`, and let time pass to what is due next, again and again, until nothing waits that is due in
        `within` seconds from now."""
        end, ran = self.clock.time() + within, self.run_all()
        while (due := self._next_due()) is not None and due <= end:
            self.clock.advance(max(0.0, due - self.clock.time()))
            ran += self.run_all()
            if len(ran) >= MOST:
                raise RuntimeError(
                    f"{MOST:,} runs within {within:g} seconds, and more to come: is a task retried for ever?"
                )
        return ran

    async def arun_all(self) -> list[Ran]:
        """`run_all` on another thread, while the running loop goes on."""
        import asyncio

        return await asyncio.to_thread(self.run_all)

    async def arun_to_end(self, within: float = 86_400.0) -> list[Ran]:
        """`run_to_end` on another thread, while the running loop goes on."""
        import asyncio

        return await asyncio.to_thread(self.run_to_end, within)

    def run_schedules(self, seconds: float) -> list[Ran]:
        """Let time pass while a beat publishes what is due, and run that, and all else that becomes ready. Raises as
        `run_all`, and `ConfigError` for schedules that cannot be used."""
        if self._beat is None:
            self._beat = Beat(self.app)
            self._beat.turn()  # from here on it leads
        end, ran = self.clock.time() + seconds, list[Ran]()
        while True:
            pause = self._beat.turn()
            ran += self.run_all()
            left = end - self.clock.time()
            if left <= 0:
                return ran
            self.clock.advance(min(left, max(pause, SHORTEST)))

    async def arun_schedules(self, seconds: float) -> list[Ran]:
        """`run_schedules` on another thread, while the running loop goes on."""
        import asyncio

        return await asyncio.to_thread(self.run_schedules, seconds)

    # -- looking

    def enqueued(self, task: Task[..., Any] | str | None = None) -> list[Enqueued]:
        """What waits, of one task or of all: by queue, what is ready first, in the order of its turn."""
        name = task if task is None or isinstance(task, str) else task.name
        calls = self._calls(self._queues())
        return [read(self.app, one, message) for one, message in calls if name in (None, message.task)]

    def assert_enqueued(
        self,
        task: Task[..., Any],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        count: int | None = None,
        **options: Unpack[Wanted],
    ) -> list[Enqueued]:
        """The calls of `task` that wait, with these arguments (without `args` and `kwargs`: any) and options. Raises
        `AssertionError`, which shows what waits instead, when there are none, or not `count`."""
        __tracebackhide__ = True
        wanted, calls = Expectation(task, args, kwargs, options), self.enqueued()
        found = [call for call in calls if call.task == wanted.task and not wanted.differences(call)]
        if len(found) != count if count is not None else not found:
            raise AssertionError(report(wanted, count, found, calls))
        return found

    def assert_nothing_enqueued(self) -> None:
        """Raises `AssertionError`, which shows what waits."""
        __tracebackhide__ = True
        calls = self.enqueued()
        if calls:
            raise AssertionError("\n".join([f"{len(calls)} calls wait", *(f"  {call}" for call in calls[:20])]))

    def _queues(self) -> Sequence[QueueInfo]:
        engine = self.app.engine
        return engine.run(engine.inspect.queues(self.app.conf.namespace))

    def _calls(self, queues: Iterable[QueueInfo]) -> Iterator[tuple[Peeked, Message]]:
        engine, namespace = self.app.engine, self.app.conf.namespace
        for queue in queues:
            for one in engine.run(engine.inspect.peek(queue.name, LOOK, namespace)):
                if one.message is not None:
                    yield one, one.message

    def _next_due(self) -> float | None:
        """When to look again for what may run: the next of what is delayed, or what the cost of a call that waits for
        its limit takes."""
        calls = list(self._calls(queue for queue in self._queues() if not queue.paused))
        moments = [one.due for one, _ in calls if one.state == "delayed" and one.due is not None]
        ready = [message for one, message in calls if one.state == "ready"]
        limits = [guard for message in ready for guard in message.guards if isinstance(guard, Limit)]
        now = self.clock.time()
        moments += [now + limit.cost / limit.rate for limit in limits if limit.rate is not None]
        return min(moments, default=None)


class _Inline:
    """A worker with one slot, which runs when it is told to."""

    def __init__(self, app: Penstock) -> None:
        app.import_tasks()
        settings = WorkerOptions(pool="solo", name="rehearsal").settle(app)
        self._app, self._engine, self._id = app, app.engine, secrets.token_hex(16)
        self._namespace, self._queues = settings.namespace, settings.queues
        self._committer = committer_of(app)
        runner = runner_of(app, Plans(app), app.engine.broker, settings.name, app.clock, None)
        self._early = early_of(app, self._committer, runner, self._id, LEASE, lambda: True)
        self._alone = Alone(runner, app.clock)
        self._call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._claimed = False
        self._graphs = Graphs(app)
        now = app.clock.time()
        info = WorkerInfo(self._id, settings.name, "test", os.getpid(), 1, self._queues, "rehearsal", now, now)
        self._engine.run(self._engine.coordinator.join(info))
        self._engine.run(self._engine.coordinator.renew([self._id], LEASE))

    def run_one(self) -> Ran | None:
        while (delivery := self._next()) is not None:
            self._call, self._claimed = ((), {}), False
            settlement = self._alone.run(delivery, self._may_start)
            slot = self._alone.slot
            if settlement is not None and self._claimed:
                self._early.conclude(slot, settlement)
            elif settlement is not None:
                slot.batch.finished.append(settlement)
            if settled := slot.batch.take():
                self._engine.run(self._committer.step(settled, None))
            self._engine.broker.record_start(0, None)
            if settlement is not None:  # else it is not ours any more
                return self._ran(delivery, settlement)
        return None

    def _next(self) -> Delivery | None:
        there = self._engine.run(self._engine.inspect.queues(self._namespace))
        # Those, too, that no worker would serve unasked: a test wants to see what is in them run.
        queues = tuple(dict.fromkeys((*self._queues, *(queue.name for queue in there))))
        want = Demand(queues, 1, self._id, lease=LEASE, namespace=self._namespace)
        step = self._engine.run(self._committer.step([], want))
        self._graphs.attach(step.deliveries)
        return step.deliveries[0] if step.deliveries else None

    def _may_start(self, slot: Slot, delivery: Delivery) -> bool:
        self._call = (slot.args, slot.kwargs)
        self._claimed = slot.plan.early
        return not self._claimed or self._early.claim(slot, delivery)

    def _ran(self, delivery: Delivery, settlement: Settlement) -> Ran:
        verdict, outcome = settlement.verdict, settlement.outcome
        if isinstance(verdict, RetryAt):
            state = State.RETRY
        elif isinstance(verdict, Dead):
            state = State.FAILURE
        else:
            state = State.SUCCESS if outcome is None else outcome.state
        name = "" if delivery.message is None else delivery.message.task
        reason = verdict.reason if isinstance(verdict, Dead) else None
        return Ran(name, *self._call, state, self._engine.broker.public_id(delivery.key), reason)
