"""Settling: what ran is committed, together with the next reservation. Nothing that ran is forgotten while we live."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from penstock.blocking import bounded
from penstock.broker import DONE, Demand, LeaseLost
from penstock.codec import failure
from penstock.commit import Committer
from penstock.delivery import Dead, Delivery, Settlement
from penstock.engine import Engine
from penstock.errors import BrokerError, PenstockError
from penstock.outcome import Outcome, State
from penstock.worker.outage import Outage

REFUSED_PAUSE = 5.0
"""Seconds until the next try to reserve, when the engine refused the last."""
STOPPING = 10.0
"""Seconds that a stopping worker tries to settle what it has run, before it leaves that to be delivered again."""
ATTEMPT = 5.0
"""Seconds for one attempt of the watchdog, which has limits to enforce."""

log = logging.getLogger("penstock.worker")


class Settler:
    """Steps of one process. Thread-safe as far as the engine is."""

    def __init__(self, engine: Engine, committer: Committer, giving_up: Callable[[], bool]) -> None:
        """`giving_up` ends the tries against an engine that cannot be reached; what is then unsettled is
        redelivered."""
        self._run = engine.run
        self._commit = committer.step
        self._public_id = engine.broker.public_id
        self._giving_up = giving_up
        self._pause = threading.Event()
        self._outage = Outage("settling and reserving")

    def step(self, settled: list[Settlement], want: Demand | None) -> Sequence[Delivery]:
        """Commit `settled` and reserve; tries until the engine answers, or too long for a worker that stops."""
        tries_since: float | None = None
        while True:
            try:
                step = self._run(self._commit(settled, want))
            except BrokerError as error:
                # Repeating is safe: what was committed is answered as a lost lease.
                pause = self._outage.go_on(error)
                if self._giving_up():
                    tries_since = monotonic() if tries_since is None else tries_since
                    if not settled or monotonic() - tries_since >= STOPPING:
                        log.error("%d tasks stay unsettled and will be delivered again", len(settled))
                        return ()
                self._pause.wait(pause)
                continue
            except Exception as error:
                told = isinstance(error, PenstockError)  # its text says all: a new password, a dropped database
                if not settled:
                    if told:
                        self._outage.go_on(error)
                    else:
                        log.exception("nothing could be reserved, again in %.0f s", REFUSED_PAUSE)
                    self._pause.wait(REFUSED_PAUSE)
                    return ()
                log.error("a settlement cannot be committed; now one by one: %s", error, exc_info=not told)
                self._one_by_one(settled)
                return ()
            self._outage.over()
            if settled and step.settled.count(DONE) != len(settled):
                self._tell_lost(settled, step.settled)
            return step.deliveries

    def attempt(self, settled: list[Settlement]) -> bool:
        """Commit `settled`, once; `False` when the engine failed and it is to be tried again."""
        try:
            step = self._run(bounded(self._commit(settled, None), ATTEMPT))
        except BrokerError as error:
            self._outage.go_on(error)
            return False
        except Exception as error:
            log.warning("settling %d tasks failed, again later: %s", len(settled), error)
            return False
        if step.settled.count(DONE) != len(settled):
            self._tell_lost(settled, step.settled)
        return True

    def _one_by_one(self, settled: Sequence[Settlement]) -> None:
        """One settlement that the engine refuses must not hold up the others; it ends in the dead letters instead."""
        for item in settled:
            if self.attempt([item]):
                continue
            error = RuntimeError("the end of this task could not be committed; see the worker's log")
            outcome = item.outcome and Outcome(State.FAILURE, failure(error), item.outcome.done, item.outcome.runtime)
            if not self.attempt([Settlement(item.receipt, Dead(str(error)), outcome)]):
                log.critical("task %r stays unsettled and will be delivered again", item.receipt)

    def _tell_lost(self, settled: Sequence[Settlement], answers: Sequence[object]) -> None:
        lost = [item.receipt for item, answer in zip(settled, answers, strict=True) if isinstance(answer, LeaseLost)]
        if lost:
            log.warning("%d leases were lost before they were settled; their results are void: %s", len(lost), lost[:3])
