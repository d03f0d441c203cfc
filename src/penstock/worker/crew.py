"""One worker process: its slots, its watchdog, and the pool that runs them, from signing on to signing off."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, cast

from penstock.blocking import bounded
from penstock.commit import Committer, FusedCommitter, OrderedCommitter
from penstock.coordinator import WorkerInfo
from penstock.delivery import Delivery, Settlement
from penstock.errors import BrokerError, BrokerUnavailable
from penstock.metrics.counts import Counts
from penstock.pool import PoolClass, Traits
from penstock.pool import Slot as AnySlot
from penstock.pressure.reports import Run, Standing
from penstock.worker.bench import Bench
from penstock.worker.early import early_of
from penstock.worker.graphs import Graphs
from penstock.worker.inline import Inline
from penstock.worker.limits import Armed
from penstock.worker.marks import Mark
from penstock.worker.outage import Outage
from penstock.worker.packing import runner_of
from penstock.worker.plan import Plans
from penstock.worker.settings import Settled
from penstock.worker.slot import Batch, Slot
from penstock.worker.tally import Sampling, Tally
from penstock.worker.watch import Watchdog

if TYPE_CHECKING:
    from penstock.app import Penstock

MOST_RUNS = 3
"""Of what runs, those that are told: they have run the longest."""
LEAVING = 5.0
"""Seconds for signing off. Who does not is found to be gone all the same."""

log = logging.getLogger("penstock.worker")


class Crew:
    """Implements `penstock.pool.Crew`. Made in the process that runs it."""

    def __init__(
        self,
        app: Penstock,
        settings: Settled,
        worker: str,
        traits: Traits,
        mark: Mark,
        tally: Tally,
        commands: int | None = None,
        upkeep: Callable[[float], None] | None = None,
    ) -> None:
        """`worker` is this process's id as a worker; `commands` the pipe from its supervisor, where it has one;
        without, `upkeep` is called about every second."""
        engine, clock = app.engine, app.clock
        committer = committer_of(app)
        self._engine = engine
        self._settings = settings
        self._worker = worker
        self._traits = traits
        self._plans = Plans(app)
        self.slots = 1 if traits.processes else settings.concurrency
        # Slots of the event loop share one batch, threads have one each.
        shared = traits.shared_batch
        batches = [Batch() for _ in range(1 if shared else self.slots)]
        self._slots = [Slot(number, batches[0 if shared else number]) for number in range(self.slots)]
        self._batch = batches[0]
        self.waiting: deque[Delivery] = self._batch.waiting
        self.finished: list[Settlement] = self._batch.finished
        self.bench = Bench(engine, committer, settings, worker, batches, self._slots, clock, Graphs(app), tally)
        self._counts = Counts(self._slots)
        self._sampling = Sampling(tally, self._counts, self._standing)
        self._runner = runner_of(app, self._plans, engine.broker, settings.name, clock, traits, self._counts)
        early = early_of(app, committer, self._runner, worker, settings.lease, self.stopped)
        self._inline = [
            Inline(self.bench, slot, self._runner, early, clock, mark, self._sampling)
            for slot in self._slots
            if not shared
        ]
        # Straight through, once per task. `Any`: the contract's `Slot` is always one of ours.
        self.prepare: Any = self._runner.prepare
        self.succeed: Any = self._runner.succeed
        self.fail: Any = self._runner.fail
        self.claim: Any = early.claim
        self.conclude: Any = early.conclude
        self._clock = clock
        self._watchdog = Watchdog(
            self.bench,
            self._runner,
            self._armed,
            clock,
            killable=traits.hard_limit,
            commands=commands,
            sampling=self._sampling,
            upkeep=upkeep,
        )

    def run(self, pool: PoolClass) -> None:
        """Sign on, run until stopped, settle everything, sign off."""
        engine, bench = self._engine, self.bench
        now = self._clock.time()
        info = WorkerInfo(
            self._worker,
            self._settings.name,
            socket.gethostname(),
            os.getpid(),
            self.slots,
            self._settings.queues,
            self._traits.name,
            now,
            now,
        )
        self._watchdog.start()
        try:
            if self._sign_on(info):
                pool(self).run()
        finally:
            for batch in bench.batches:
                bench.finish(batch)
            self._watchdog.close()
            self._sampling.close(self._clock.monotonic())
            try:
                engine.run(bounded(engine.coordinator.leave(self._worker), LEAVING))
            except BrokerError as error:
                log.warning("could not sign off: %s", error)
            bench.close()

    def _sign_on(self, info: WorkerInfo) -> bool:
        """Tries until the server answers: a child that dies for want of it would be back later than this one.
        `False`: it was stopped meanwhile."""
        outage = Outage("signing on")
        while not self.bench.warm:
            try:
                self._engine.run(self._engine.coordinator.join(info))
            except BrokerUnavailable as error:
                threading.Event().wait(outage.go_on(error))
            else:
                outage.over()
                return True
        return False

    def stop(self) -> None:
        """Warm stop. Safe in a signal handler."""
        self.bench.stop()

    def cold(self) -> None:
        """Give up what runs. Safe in a signal handler."""
        self._watchdog.cold()

    def _armed(self, number: int) -> Armed | None:
        return self._inline[number].armed if self._inline else None

    # -- what pools use

    def serve(self, number: int) -> None:
        self._inline[number].serve()

    def slot(self, number: int) -> Slot:
        return self._slots[number]

    def stopped(self) -> bool:
        return self.bench.warm

    def interrupt(self) -> None:
        self._engine.broker.interrupt()

    def busy(self) -> None:
        self.bench.watch()
        self._runner.tick(self._clock.monotonic())

    def pull(self, limit: int, idle: bool) -> bool:
        bench, settled = self.bench, self._batch.take()
        if not limit and not settled:
            return False
        deliveries = bench.pull(settled, limit, bench.idle_wait if idle and not settled else 0.0)
        # What has ended meanwhile may be followed by more.
        under_way = self.waiting or any(slot.delivery for slot in self._slots) or self.finished
        nothing = not (deliveries or settled or under_way)
        if nothing and idle and bench.burst:
            bench.stop()
        self.waiting.extend(deliveries)
        return bool(deliveries or settled)

    def ran(self, slot: int, count: int) -> None:
        self.bench.rest(slot)
        self.bench.ran(count)

    def took(self, slot: AnySlot, seconds: float, tasks: int) -> None:
        ours = cast(Slot, slot)
        message = ours.request.message
        self._sampling.note((message.queue, ours.plan.name, seconds, tasks, 0.0, message.ready_since))

    def _standing(self, now: float) -> Standing:
        """What runs, from the watchdog's thread: slots go on meanwhile."""
        runs, latest = [], 0.0
        for slot in self._slots:
            delivery = slot.delivery
            if delivery is None:
                continue
            request, plan, started = slot.request, slot.plan, slot.started
            if slot.delivery is not delivery:
                continue
            latest = max(latest, started, request.noted)
            runs.append(Run(request.message.queue, plan.name, now - started, plan.hard or plan.expected))
        longest = sorted(runs, key=lambda run: run.seconds, reverse=True)[:MOST_RUNS]
        still = max(0.0, now - latest) if runs else 0.0
        return Standing(f"{self._settings.name} pid {os.getpid()}", self.slots, len(runs), still, longest)

    def start(self, slot: AnySlot) -> tuple[bool, Callable[[], Any]]:
        ours = cast(Slot, slot)
        plan = ours.plan
        assert ours.delivery is not None
        if "before_start" in plan.hooks:
            self._runner.before_start(ours)
        call = plan.bound(ours.delivery, ours.args, ours.kwargs)
        if plan.is_coroutine:
            return True, call
        context = copy_context()
        return False, lambda: context.run(call)

    def early(self, slot: AnySlot) -> bool:
        return cast(Slot, slot).plan.early


def committer_of(app: Penstock) -> Committer:
    """What settles the app's tasks."""
    engine, results = app.engine, app.results if app.keeps_results else None
    if results is engine and engine.broker.features.atomic_settle:
        return FusedCommitter(cast(Any, app.broker))
    return OrderedCommitter(cast(Any, app.broker), results, app.clock)
