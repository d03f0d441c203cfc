"""What is delivered and not run: unreadable, unknown here, expired, poisoned, no fit. Each ends, or is put off."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from penstock.broker import Key
from penstock.delivery import Dead, Delivery, RetryAt, Settlement
from penstock.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    MessageTooLarge,
    TaskRevoked,
    UnknownTask,
    Unsupported,
    WorkerLost,
)
from penstock.message import Message, Place
from penstock.worker.ends import Ends, failure_of
from penstock.worker.parts import Parts
from penstock.worker.plan import Plan, Plans

UNKNOWN_TRIES = 10
"""How often a task that is not registered is put off (1, 2, 4 … 60 s: about five minutes) before it is a dead
letter."""
UNREADABLE_TRIES = 4
"""How often a message that cannot be read is put off (1, 4, 16 … s) before it is a dead letter."""
TRIES_HEADER = "penstock-unknown"

log = logging.getLogger("penstock.worker")


class Unstarted:
    """For one process. `now` is always Unix time."""

    def __init__(
        self,
        plans: Plans,
        parts: Parts,
        ends: Ends,
        public_id: Callable[[Key], str],
        note_end: Callable[[str, str], None],
    ) -> None:
        """`note_end` counts ends: a task's name, and how."""
        self._plans = plans
        self._parts = parts
        self._ends = ends
        self._public_id = public_id
        self._note_end = note_end

    def part(self, delivery: Delivery, message: Message, place: Place, now: float) -> Settlement | None:
        try:
            return self._parts.unstarted(delivery, message, place, now)
        except (DecodeError, EncodeError, MessageTooLarge) as error:
            return self._ends.dead(delivery, message, str(error), failure_of(error, 0.0, 0, now), now)

    def unreadable(self, delivery: Delivery, now: float) -> Settlement:
        name = self._public_id(delivery.key)
        if delivery.attempts >= UNREADABLE_TRIES:
            log.error("message %s cannot be read (%s): to the dead letters", name, delivery.damage)
            reason = f"cannot be read: {delivery.damage}"
            return Settlement(delivery.receipt, Dead(reason), failure_of(DecodeError(reason), 0.0, 0, now))
        wait = 4.0**delivery.attempts
        log.warning("message %s cannot be read (%s): again in %.0f s", name, delivery.damage, wait)
        return Settlement(delivery.receipt, RetryAt(now + wait, charge=True))

    def unknown(self, delivery: Delivery, message: Message, now: float) -> Settlement:
        # The task did nothing wrong, and may be known to a newer worker.
        error = UnknownTask(f"no task {message.task!r} is registered")
        return self._put_off(
            delivery, message, error, "is not registered here", "is its module imported by the app?", now
        )

    def unkept(self, delivery: Delivery, message: Message, limit: str, now: float) -> Settlement:
        # A limit that was asked for is never ignored; a worker with another pool may keep it.
        error = Unsupported(f"this call has {limit} cannot keep")
        return self._put_off(delivery, message, error, f"has {limit} cannot keep", "run a worker with -P prefork", now)

    def _put_off(
        self, delivery: Delivery, message: Message, error: Exception, what: str, remedy: str, now: float
    ) -> Settlement:
        """Not for this worker: later, for another, and after some tries to the dead letters."""
        name = self._public_id(delivery.key)
        # Counted apart from `attempts`, which are for what the task itself does to its workers.
        tries = _count(message)
        if tries >= UNKNOWN_TRIES:
            log.error("task %s[%s] %s: to the dead letters", message.task, name, what)
            return self._ends.dead(delivery, message, str(error), failure_of(error, 0.0, message.retries, now), now)
        wait = min(60.0, 2.0**tries)
        log.warning("task %s[%s] %s: again in %.0f s (%s)", message.task, name, what, wait, remedy)
        headers = {**(message.headers or {}), TRIES_HEADER: str(tries + 1)}
        when = now + wait
        return Settlement(delivery.receipt, RetryAt(when, replace(message, headers=headers, eta=when)))

    def expired(self, delivery: Delivery, message: Message, now: float) -> Settlement:
        if message.task in self._plans:
            self._note_end(message.task, "expired")
        log.info("task %s[%s] expired before it could start", message.task, self._public_id(delivery.key))
        return self._ends.revoked(delivery, message, TaskRevoked("expired before it could start"), 0.0, now)

    def poisoned(self, delivery: Delivery, message: Message, plan: Plan, now: float) -> Settlement:
        error = WorkerLost(
            f"the worker died while it ran this task, {message.attempts} times (max_attempts={plan.max_attempts})"
        )
        log.error("task %s[%s]: %s: to the dead letters", message.task, self._public_id(delivery.key), error)
        self._note_end(plan.name, "failed")
        return self._ends.dead(delivery, message, str(error), self._ends.failed(plan, message, error, 0.0, now), now)

    def warn_redelivered(self, delivery: Delivery, message: Message, plan: Plan) -> None:
        log.warning(
            "task %s[%s] is delivered again: its worker died or lost it (attempt %d of %d)",
            message.task,
            self._public_id(delivery.key),
            message.attempts + 1,
            plan.max_attempts,
        )

    def unfollowed(self, delivery: Delivery, message: Message, plan: Plan, now: float) -> Settlement:
        # Its caller knew it with other options.
        error = ConfigError("it is acknowledged before it runs (acks_late=False): nothing could follow it in a canvas")
        log.error("task %s[%s] is not started: %s", message.task, self._public_id(delivery.key), error)
        return self._ends.dead(delivery, message, str(error), self._ends.failed(plan, message, error, 0.0, now), now)

    def misfit(self, delivery: Delivery, message: Message, plan: Plan, error: DecodeError, now: float) -> Settlement:
        log.error("task %s[%s] cannot be called: %s", message.task, self._public_id(delivery.key), error)
        self._note_end(plan.name, "failed")
        return self._ends.dead(delivery, message, str(error), self._ends.failed(plan, message, error, 0.0, now), now)


def _count(message: Message) -> int:
    tries = (message.headers or {}).get(TRIES_HEADER, "0")
    return int(tries) if tries.isdecimal() and len(tries) < 4 else UNKNOWN_TRIES
