"""The supervisor: starts the children, keeps their leases while they live, replaces them when they die.

TERM or INT: the children finish what they run and hand back the rest. A second INT, or QUIT: they give up what they
run. HUP: each child finishes what it runs and is replaced, from the modules as this process has loaded them; for new
code, start a new worker and stop this one. It never runs a task and never waits for one, so nothing that a task does
holds it up.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from penstock.blocking import bounded
from penstock.codec import failure
from penstock.delivery import Dead, Settlement
from penstock.errors import BrokerError, TimeLimitExceeded
from penstock.outcome import Outcome, State
from penstock.pool import PoolClass, Traits
from penstock.pressure import reports
from penstock.pressure.keeper import Keeper, Local
from penstock.worker.beating import run_beat
from penstock.worker.child import EXIT_RECYCLE, Child, Run, fork_child, run_crew
from penstock.worker.crew import committer_of
from penstock.worker.marks import Started
from penstock.worker.measuring import Ledger, metrics_of
from penstock.worker.rescue import Rescue
from penstock.worker.settings import Settled
from penstock.worker.upkeep import PATIENCE, Upkeep
from penstock.worker.watch import EXIT_COLD, EXIT_LIMIT, EXIT_REVOKED

if TYPE_CHECKING:
    from penstock.app import Penstock

TICK = 0.5
"""Seconds between two looks at the children."""
HEALTHY = 60.0
"""Seconds that a child must have lived for its death to be a new story."""
LONGEST_BACKOFF = 30.0
OVERDUE = 1.0
"""Seconds beyond its hard limit after which a child that did not end the task itself is killed."""
COLD_PATIENCE = 5.0
"""Seconds that a cold stop leaves the children to settle what is done."""
MOST_LACKING = 32
"""Queues of which it is told that a stopped child does not serve them."""
BEAT = 0
"""The number of the child that is a beat; those that run tasks have the others."""
EXPECTED = frozenset({0, EXIT_RECYCLE, EXIT_LIMIT, EXIT_REVOKED, EXIT_COLD})

log = logging.getLogger("penstock.worker")


class Supervisor:
    def __init__(self, app: Penstock, settings: Settled, pool: PoolClass, traits: Traits) -> None:
        self._app = app
        self._settings = settings
        self._pool = pool
        self._traits = traits
        self._monotonic = app.clock.monotonic
        self._children: dict[int, Child] = {}
        self._due: dict[int, float] = {}
        """Child number → when it is to be started (again)."""
        self._failures: dict[int, int] = {}
        self._stopping = False
        self._cold_since: float | None = None
        self._signals: list[int] = []
        self._bell = os.pipe()
        self._overdue: dict[int, Started] = {}
        self._stopped: dict[int, str] = {}
        self._upkeep: Upkeep
        self._ledger = Ledger(self._monotonic, 1 if traits.processes else settings.concurrency)
        self._metrics = metrics_of(app, settings.metrics, self._ledger) if settings.metrics is not None else None

    def run(self) -> int:
        """Until all children have ended and none is to be replaced. 0 after a warm stop."""
        self._catch_signals()
        # What is loaded now is never collected, so that its pages stay shared with the children.
        gc.collect()
        gc.freeze()
        count = self._settings.concurrency if self._traits.processes else 1
        numbers = range(BEAT if self._settings.beat else BEAT + 1, count + 1)
        self._due = dict.fromkeys(numbers, 0.0)
        self._start_due(self._monotonic())
        results = self._app.results if self._app.keeps_results else None
        pressure = Keeper(self._app, self._settings.queues, self._sampled, self._settings.name)
        self._upkeep = Upkeep(self._app.engine, results, self._settings.lease, self._alive, pressure)
        rescue = Rescue(self._app.engine, self._children.get)
        rescue.start()
        if self._metrics is not None:
            self._metrics.start()
            log.info("metrics: %s", self._metrics.server.url)
        poll = select.poll()
        poll.register(self._bell[0], select.POLLIN)
        while self._children or (self._due and not self._stopping):
            if poll.poll(self._patience() * 1000):
                os.read(self._bell[0], 4096)
            while self._signals:
                self._obey(self._signals.pop(0))
            self._collect_dead()
            now = self._monotonic()
            if not self._stopping:
                self._start_due(now)
            self._look(now)
            if not self._overdue:  # what we killed for its limit is settled first: reaping would only redeliver it
                self._upkeep.tick(now)
        rescue.close()
        self._upkeep.close()
        if self._metrics is not None:
            self._metrics.close()
        signal.set_wakeup_fd(-1)
        for descriptor in self._bell:
            os.close(descriptor)
        log.info("stopped")
        return 0 if self._cold_since is None else EXIT_COLD

    def stop(self) -> None:
        """Warm stop, from any thread."""
        os.kill(os.getpid(), signal.SIGTERM)

    # -- signals

    def _catch_signals(self) -> None:
        os.set_blocking(self._bell[1], False)
        signal.set_wakeup_fd(self._bell[1], warn_on_full_buffer=False)
        for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(caught, self._note)
        # A handler, so that the death of a child rings the bell.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP:
            log.info("restarting the children")
            for child in self._children.values():
                child.warm()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self._stopping):
            log.warning("cold stop: giving up what runs; it will be delivered again")
            self._stopping = True
            self._cold_since = self._monotonic()
            for child in self._children.values():
                child.cold()
        elif not self._stopping:
            log.info(
                "warm stop: waiting for what runs%s", "; Ctrl-C again gives it up" if number == signal.SIGINT else ""
            )
            self._stopping = True
            for child in self._children.values():
                child.warm()

    # -- children

    def _start_due(self, now: float) -> None:
        for number in [number for number, when in self._due.items() if when <= now]:
            del self._due[number]
            siblings = [*self._bell, *(child.commands for child in self._children.values())]
            siblings += self._metrics.descriptors if self._metrics is not None else []
            child = fork_child(self._work_of(number), number, siblings, now)
            self._children[child.pid] = child
            if number != BEAT:
                self._ledger.open(child.pid, child.tally)

    def _work_of(self, number: int) -> Run:
        if number == BEAT:
            return partial(run_beat, self._app)
        return partial(run_crew, self._app, self._settings, self._pool, self._traits, number)

    def _collect_dead(self) -> None:
        for pid, child in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[pid]
                os.close(child.commands)
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, code: int) -> None:
        engine, now = self._app.engine, self._monotonic()
        if child.number != BEAT:
            self._ledger.close(child.pid)
        overdue = self._overdue.pop(child.pid, None)
        if overdue is not None:
            self._end_overdue(overdue)
        taken = 0
        if code != 0 and child.number != BEAT:
            try:
                taken = engine.run(bounded(engine.coordinator.bury(child.worker), PATIENCE))
            except BrokerError as error:
                log.warning("the leases of %s run out by themselves: %s", child.name, error)
        if code in EXPECTED:
            log.debug("%s ended (%d)", child.name, code)
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            log.error("%s %s; tasks that it held and that are delivered again: %d", child.name, how, taken)
        if self._stopping or (code == 0 and self._settings.burst):
            return
        self._due[child.number] = now + self._backoff(child, code, now, taken)

    def _backoff(self, child: Child, code: int, now: float, taken: int) -> float:
        """Seconds until its successor starts. A child that dies with work in its hands was killed by a task, and tasks
        have `max_attempts`: waiting would only hold up their neighbours. One that dies without is broken itself."""
        if code in EXPECTED or taken or now - child.started >= HEALTHY:
            self._failures.pop(child.number, None)
        if code in EXPECTED or taken:
            return 0.0
        failures = self._failures[child.number] = self._failures.get(child.number, 0) + 1
        return 0.0 if failures == 1 else min(LONGEST_BACKOFF, 0.5 * 2.0 ** min(failures - 2, 10))

    def _patience(self) -> float:
        soonest = min(self._due.values(), default=float("inf")) - self._monotonic()
        return max(0.0, min(TICK, soonest))

    def _sampled(self) -> Local:
        now = self._monotonic()
        children = [child for child in self._children.values() if child.number != BEAT]
        halted = [(child, seconds) for child in children if (seconds := child.halted(now)) is not None]
        stopped = {child for child, _ in halted}
        self._tell_stopped({child.pid: child.name for child in stopped})
        live = [child for child in children if child not in stopped]
        samples = [found for child in live if (found := child.tally.read(now)) is not None]
        slots = len(live) * (1 if self._traits.processes else self._settings.concurrency)
        standing = [self._lacking(child.pid, seconds) for child, seconds in halted]
        busy = 0
        for child in live:
            pulse = child.tally.pulse(now)
            if pulse is None:
                continue
            busy += pulse.busy
            if pulse.standing is not None:
                told = bool(pulse.standing.worker)
                standing.append(pulse.standing if told else self._lacking(child.pid, pulse.standing.still))
        return Local(slots, samples, busy, standing)

    def _lacking(self, pid: int, seconds: float) -> reports.Standing:
        """Of a child that is stopped, or does not get to tell: all queues that it serves lack it, whatever it does."""
        runs = [reports.Run(queue, "", seconds) for queue in self._settings.queues[:MOST_LACKING]]
        return reports.Standing(f"{self._settings.name} pid {pid}", 0, 0, seconds, runs)

    def _tell_stopped(self, stopped: dict[int, str]) -> None:
        for pid in stopped.keys() - self._stopped.keys():
            log.warning(
                "%s is suspended, and runs nothing; what it holds is given to others: kill -CONT %d lets it go on, "
                "kill -9 replaces it",
                stopped[pid],
                pid,
            )
        for pid in self._stopped.keys() - stopped.keys():
            log.info("%s is not suspended any more", self._stopped[pid])
        self._stopped = stopped

    def _alive(self) -> list[str]:
        return [child.worker for child in self._children.values() if child.number != BEAT and not child.stopped()]

    def _look(self, now: float) -> None:
        """End children that cannot end themselves."""
        for child in self._children.values():
            started = child.mark.get()
            late = started is not None and now > started.started + started.limit + OVERDUE
            if started is not None and late and child.pid not in self._overdue:
                log.error("%s is over a time limit and does not react: killing it", child.name)
                self._overdue[child.pid] = started
                child.kill()
            elif self._cold_since is not None and now > self._cold_since + COLD_PATIENCE:
                log.error("%s does not stop: killing it", child.name)
                child.kill()

    def _end_overdue(self, run: Started) -> None:
        """Settle the task whose process we had to kill at its hard limit. Otherwise it would only be charged an
        attempt."""
        if run.receipt is None:
            return
        error = TimeLimitExceeded(f"the task was ended at its time limit of {run.limit:g} s")
        runtime = self._monotonic() - run.started
        outcome = Outcome(State.FAILURE, failure(error), self._app.clock.time(), runtime)
        settlement = Settlement(run.receipt, Dead(f"TimeLimitExceeded: {error}"), outcome)
        committer = committer_of(self._app)
        committer.know(run.receipt, run.key)
        try:
            self._app.engine.run(bounded(committer.step([settlement], None), PATIENCE))
        except BrokerError as failed:
            log.warning("the task that was over its time limit could not be settled: %s", failed)
