"""At most once where a broker keeps no shared state: the task is acknowledged before it starts, and its end is stored
apart. While it runs nobody knows of it."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from penstock.broker import DONE, Accepted, Broker
from penstock.commit import Committer
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement
from penstock.engine import Engine
from penstock.errors import BrokerError
from penstock.worker.slot import Slot

PUBLISH_TIMEOUT = 30.0

log = logging.getLogger("penstock.worker")


class Acknowledged:
    """Implements `penstock.worker.early.Early`. Thread-safe as far as the engine is."""

    def __init__(self, engine: Engine, results: Engine | None, committer: Committer) -> None:
        self._engine = engine
        self._results = results
        self._committer = committer
        self._broker: Broker = engine.broker

    def claim(self, slot: Slot, delivery: Delivery) -> bool:
        settled = [*slot.batch.take(), Settlement(delivery.receipt, ACK)]
        try:
            step = self._engine.run(self._committer.step(settled, None))
        except BrokerError as error:
            log.warning(
                "task %s[%s] is not started: its acknowledgement failed: %s", slot.plan.name, delivery.key, error
            )
            # What had ended before goes on waiting for the next step; so does this one, to be handed back.
            slot.batch.finished.extend([*settled[:-1], Settlement(delivery.receipt, RELEASE)])
            return False
        return bool(step.settled[-1] == DONE)

    def conclude(self, slot: Slot, settlement: Settlement) -> None:
        """A failure here loses the result, and says so."""
        request, verdict = slot.request, settlement.verdict
        try:
            if isinstance(verdict, RetryAt) and verdict.message is not None:
                again = replace(verdict.message, id=request.id, eta=verdict.when)
                answers = self._engine.run(self._broker.follow_up([again], PUBLISH_TIMEOUT))
                if not isinstance(answers[0], Accepted):
                    log.error("task %s[%s] could not be retried: %s", slot.plan.name, request.id, answers[0])
            elif settlement.outcome is not None and self._results is not None:
                settlement.outcome.task = slot.plan.name
                self._results.run(self._results.backend.store([(request.id, settlement.outcome)]))
            if isinstance(verdict, Dead):
                log.warning(
                    "task %s[%s] is no dead letter: it was acknowledged early (%s)",
                    slot.plan.name,
                    request.id,
                    verdict.reason,
                )
        except BrokerError:
            log.exception("the end of task %s[%s] could not be stored", slot.plan.name, request.id)
