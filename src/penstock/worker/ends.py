"""How a task ends, as settlements and outcomes: dead letter, revoked, and with what is freed and told then."""

from __future__ import annotations

from collections.abc import Callable

from penstock.broker import Key
from penstock.codec import failure
from penstock.delivery import ACK, Dead, Delivery, Settlement
from penstock.effects import Effect, ReleaseKey
from penstock.errors import ResultError, TaskRevoked
from penstock.message import Message, Unique
from penstock.outcome import Outcome, State
from penstock.worker.early import noteless
from penstock.worker.parts import Parts
from penstock.worker.plan import Plan


class Ends:
    """For one process. `now` is always Unix time, `runtime` in seconds."""

    def __init__(self, parts: Parts, public_id: Callable[[Key], str], notes: bool) -> None:
        """`notes`: starts are noted, see `penstock.worker.early`."""
        self._parts = parts
        self._public_id = public_id
        self._notes = notes

    def over(self, plan: Plan, delivery: Delivery, settlement: Settlement) -> Settlement:
        """An end other than the pool's, which says so itself: with the note that an earlier run may have left."""
        if plan.early and self._notes:
            return noteless(settlement, self._public_id(delivery.key))
        return settlement

    def failed(self, plan: Plan, message: Message, error: BaseException, runtime: float, now: float) -> Outcome | None:
        return None if plan.ignore_result else failure_of(error, runtime, message.retries, now)

    def revoked(
        self, delivery: Delivery, message: Message, error: TaskRevoked, runtime: float, now: float
    ) -> Settlement:
        why = failure(error)
        outcome = Outcome(State.REVOKED, why, now, runtime, message.retries)
        effects = freed(message) + self._parts.ended(delivery, message, State.REVOKED, why, now)
        return Settlement(delivery.receipt, ACK, outcome, effects)

    def dead(
        self, delivery: Delivery, message: Message, reason: str, outcome: Outcome | None, now: float
    ) -> Settlement:
        why = outcome.value if outcome is not None else failure(ResultError(reason), "")
        effects = freed(message) + self._parts.ended(delivery, message, State.FAILURE, why, now)
        return Settlement(delivery.receipt, Dead(reason), outcome, effects)


def failure_of(error: BaseException, runtime: float, retries: int, now: float) -> Outcome:
    return Outcome(State.FAILURE, failure(error), now, runtime, retries)


def freed(message: Message) -> tuple[Effect, ...]:
    """The unique keys that end with the task. Engines free those `until="start"` when they hand the message out, and
    those `until="ttl"` in their time."""
    return tuple(
        ReleaseKey(guard.key) for guard in message.guards if isinstance(guard, Unique) and guard.until != "ttl"
    )
