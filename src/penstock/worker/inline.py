"""The inline loop: one slot on one thread. Reserve, run and settle, where settling and reserving are one step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from penstock import request as requests
from penstock.clock import Clock
from penstock.delivery import Delivery
from penstock.worker.early import Early
from penstock.worker.limits import Armed
from penstock.worker.marks import Mark
from penstock.worker.reserve import Credit
from penstock.worker.run import Runner
from penstock.worker.slot import Slot
from penstock.worker.tally import AT_ONCE, Sampling

if TYPE_CHECKING:
    import asyncio

    from penstock.worker.bench import Bench

log = logging.getLogger("penstock.worker")


class Inline:
    """A slot that runs plain functions on the thread that calls `serve`.

    A coroutine task occupies the slot, and runs on this thread's own loop, which lives as long as the slot does.
    """

    def __init__(
        self, bench: Bench, slot: Slot, runner: Runner, early: Early, clock: Clock, mark: Mark, sampling: Sampling
    ) -> None:
        self._bench = bench
        self._slot = slot
        self._batch = slot.batch
        self._runner = runner
        self._early = early
        self._monotonic = clock.monotonic
        self._mark = mark
        self._note = sampling.note
        self._batches = 0
        self._overhead = 0.0
        """Seconds for each task, from the end of one batch to the next, of settling and reserving: its time, too."""
        self._ended = 0.0
        self._credit = Credit()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.armed = Armed()

    def serve(self) -> None:
        """Until the bench is stopped; returns when all that was started is settled and the rest handed back."""
        self.armed.bind()
        bench, batch = self._bench, self._batch
        wait = 0.0
        try:
            while not bench.warm:
                settled = batch.take()
                deliveries = bench.pull(settled, self._credit.want, 0.0 if settled else wait)
                if deliveries:
                    if settled:  # else it has waited for work
                        self._overhead = (self._monotonic() - self._ended) / len(deliveries)
                    batch.waiting.extend(deliveries)
                    self._run_batch()
                    wait = 0.0
                elif wait and not settled and bench.burst:
                    break
                else:
                    wait = bench.idle_wait
        finally:
            bench.finish(batch)
            if self._loop is not None:
                self._loop.close()

    def _run_batch(self) -> None:
        """Run what waits. The watchdog may take from the other end meanwhile."""
        slot, runner, bench = self._slot, self._runner, self._bench
        next_delivery, finish = self._batch.waiting.popleft, self._batch.finished.append
        prepare, succeed, fail, monotonic = runner.prepare, runner.succeed, runner.fail, self._monotonic
        bench.watch()
        now = began = monotonic()
        runner.tick(now)
        # Each of a few, and from batch to batch others, is noted for as many as come until the next.
        stride = max(1, len(self._batch.waiting) // AT_ONCE)
        count, noted = 0, 1 + self._batches % stride
        self._batches += 1
        while not bench.warm:
            try:
                delivery = next_delivery()
            except IndexError:
                break
            count += 1
            settlement = prepare(slot, delivery, now)
            if settlement is not None:
                finish(settlement)
                continue
            plan = slot.plan
            if plan.early and not self._early.claim(slot, delivery):
                slot.delivery = None
                continue
            try:
                if plan.simple:
                    # In a context of its own: what the function sets there is gone with it.
                    context = copy_context()
                    if slot.kwargs:
                        value = context.run(plan.function, *slot.args, **slot.kwargs)
                    else:
                        value = context.run(plan.function, *slot.args)
                else:
                    value = self._call(slot, delivery)
                if slot.request.sink is not None:
                    slot.request.sink.finish()
            except BaseException as error:
                if slot.request.sink is not None:
                    slot.request.sink.abandon()
                now = monotonic()
                settlement = fail(slot, error, now)
            else:
                now = monotonic()
                settlement = succeed(slot, value, now)
            if count >= noted:
                noted = count + stride
                message, overhead = slot.request.message, self._overhead
                took = now - slot.started + overhead
                self._note((message.queue, plan.name, took, stride, overhead, message.ready_since))
            if plan.early:
                self._early.conclude(slot, settlement)
            else:
                finish(settlement)
        requests.current.set(None)  # a solo worker's thread is somebody else's, later
        self._ended = now
        bench.rest(slot.number)
        bench.ran(count)
        self._credit.ran(count, now - began)

    def _call(self, slot: Slot, delivery: Delivery) -> Any:
        """Call a function that is a coroutine, or has limits or a `before_start`."""
        plan, context = slot.plan, copy_context()
        if "before_start" in plan.hooks:
            context.run(self._runner.before_start, slot)
        call = plan.bound(delivery, slot.args, slot.kwargs)
        if plan.hard is not None:
            self._mark.set(slot.started, plan.hard, delivery)
        try:
            if plan.is_coroutine:
                return self._drive(slot, context, call)
            self.armed.arm(delivery)
            value = context.run(call)
            self.armed.disarm()
            return value
        except BaseException:
            self.armed.disarm()
            raise
        finally:
            if plan.hard is not None:
                self._mark.clear()

    def _drive(self, slot: Slot, context: Context, call: Callable[[], Any]) -> Any:
        """Run a coroutine task on this thread's loop, to its end or to its cancellation by the watchdog."""
        import asyncio  # most workers have no coroutine tasks

        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.new_event_loop()
        task = loop.create_task(context.run(call), context=context)
        slot.interrupt = lambda _: loop.call_soon_threadsafe(task.cancel)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            overdue = slot.overdue
            if overdue is not None and overdue[0] is slot.delivery:
                raise overdue[1] from None
            raise
        finally:
            slot.interrupt = None
