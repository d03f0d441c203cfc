"""One task, in named steps: from a delivery to the settlement that ends it.

`prepare` loads a slot, the pool calls the function, `succeed` or `fail` turn what came of it into a settlement. The
three are the same for threads, processes and the event loop; none of them blocks or talks to the engine. What is not to
be run is told in `unstarted.py`, and how an end is written in `ends.py`.

What becomes of a task:
- it returned: Ack, SUCCESS with the value (nothing is stored when its result is ignored)
- it raised and may be retried, or asks for it, or for more time (`Snooze`): RetryAt
- it failed for good: FAILURE, and the dead letters, from where `penstock dead retry` brings it back
- `Ignore`: Ack, nothing is stored. `Reject`: the dead letters; with `requeue` ready again after a second
- revoked while it ran, or expired before: Ack, REVOKED
- its worker died `max_attempts` times: not run again; FAILURE (`WorkerLost`), and the dead letters
- its arguments do not fit the function: FAILURE, and the dead letters
- it is part of a canvas, and what it waited for gave no value: not run; it ends as that did
- the task is unknown here, its call has a time limit that this pool cannot keep, or the message is unreadable: later,
and after some tries to the dead letters. A newer worker, or one with another pool, may know it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from msgspec.structs import replace

from penstock import request as requests
from penstock.broker import Features, Key
from penstock.canvas.replacing import fits, replacement
from penstock.canvas.standing import beside, instead
from penstock.clock import Clock
from penstock.codec import failure, summary
from penstock.delivery import ACK, Delivery, Receipt, RetryAt, Settlement
from penstock.effects import Effect
from penstock.errors import (
    DecodeError,
    TaskRevoked,
    TimeLimitExceeded,
)
from penstock.hooks import ErrorInfo
from penstock.limiting import has_expired
from penstock.metrics.counts import Counts
from penstock.outcome import Outcome, State
from penstock.pool import Traits
from penstock.replaced import moved
from penstock.request import Request
from penstock.retry import Again, Decision, Drop, GiveUp, Instead, Refuse, decide, snoozes
from penstock.worker.ends import Ends, freed
from penstock.worker.parts import Parts
from penstock.worker.plan import Plans
from penstock.worker.slot import Slot
from penstock.worker.unstarted import Unstarted

if TYPE_CHECKING:
    from penstock.canvas.calls import Canvas

REQUEUE_DELAY = 1.0
"""Seconds until a rejected, requeued task is ready again, so that it cannot keep a worker spinning."""
log = logging.getLogger("penstock.worker")
_SUCCESS = State.SUCCESS


class Told(Protocol):
    """What a run has to say to its broker, and to ask of it."""

    @property
    def features(self) -> Features: ...

    def record_start(self, slot: int, receipt: Receipt | None) -> None: ...

    def public_id(self, key: Key) -> str: ...


class Runner:
    """Runs the tasks of one app in one process. Thread-safe: all that changes is in the slots."""

    def __init__(
        self,
        plans: Plans,
        broker: Told,
        worker: str,
        clock: Clock,
        rng: Callable[[], float] = random.random,
        traits: Traits | None = None,
        counts: Counts | None = None,
    ) -> None:
        """`traits`: what the pool can enforce; `None`: everything. `counts` is told of all ends but successes, which
        are counted in slots."""
        self._plans = plans
        self._worker = worker
        self._rng = rng
        self._traits = traits
        self._time = clock.time
        self._record_start = broker.record_start
        self._public_id = broker.public_id
        self._wall = clock.time() - clock.monotonic()
        self._counts = counts or Counts()
        self._note_end = self._counts.ended
        self._parts = Parts(broker.public_id, broker.features.max_message)
        self._notes = broker.features.notes_starts
        self._ends = Ends(self._parts, broker.public_id, self._notes)
        self._unfit = Unstarted(plans, self._parts, self._ends, broker.public_id, self._note_end)
        self._log_success = log.isEnabledFor(logging.DEBUG)

    def tick(self, monotonic: float) -> None:
        """Once per batch: learn how wall time is related to monotonic time, so that a run needs one look at a clock."""
        self._wall = self._time() - monotonic

    # -- before

    def prepare(self, slot: Slot, delivery: Delivery, now: float) -> Settlement | None:
        """Load `slot` with `delivery`. A settlement means that there is nothing to run. `now` is monotonic."""
        message = delivery.message
        if message is None:
            return self._unfit.unreadable(delivery, now + self._wall)
        options = message.options
        if options is not None and options.place is not None:
            unstarted = self._unfit.part(delivery, message, options.place, now + self._wall)
            if unstarted is not None:
                return unstarted
        plan = self._plans.get(message.task) or self._plans.of(message.task)
        if plan is None:
            return self._unfit.unknown(delivery, message, now + self._wall)
        task = plan
        if options is not None:
            plan = plan.under(options)
            if plan.early and not self._notes and options.place is not None:
                return self._unfit.unfollowed(delivery, message, plan, now + self._wall)
            unkept = plan.unkept(self._traits) if self._traits is not None else None
            if unkept is not None:
                return self._unfit.unkept(delivery, message, unkept, now + self._wall)
        late = message.expires is not None and has_expired(message.expires, delivery.let_go, now + self._wall)
        if late and not (plan.early and message.attempts):  # else it has started, and its worker was lost
            return self._ends.over(plan, delivery, self._unfit.expired(delivery, message, now + self._wall))
        if message.attempts:
            if late or message.attempts >= plan.max_attempts:
                return self._ends.over(plan, delivery, self._unfit.poisoned(delivery, message, plan, now + self._wall))
            self._unfit.warn_redelivered(delivery, message, plan)
        try:
            body = message.body if options is None or options.place is None else options.place.body(message.body)
            slot.args, slot.kwargs = plan.arguments(body, message.content_type)
        except DecodeError as error:
            return self._ends.over(plan, delivery, self._unfit.misfit(delivery, message, plan, error, now + self._wall))
        if task is not slot.task:
            self._counts.turn(slot, task)
        slot.plan = plan
        slot.started = now
        slot.request = request = Request(
            message, delivery.key, self._public_id, self._worker, slot.args, slot.kwargs, delivery
        )
        requests.current.set(request)
        slot.delivery = delivery
        self._record_start(slot.number, delivery.receipt)
        return None

    # -- after

    def succeed(self, slot: Slot, value: Any, now: float) -> Settlement:
        """The function returned `value`."""
        delivery, plan = slot.delivery, slot.plan
        assert delivery is not None
        if slot.cancelled is delivery:
            return self._cancelled(slot, delivery, now)
        request = slot.request
        message = request.message
        outcome = None
        effects: tuple[Effect, ...] = ()
        place = message.options.place if message.options is not None else None
        if place is not None or not plan.ignore_result:
            try:
                encoded = plan.encode_result(value)
                if place is not None:
                    if request.added:
                        effects = self._beside(slot, delivery, encoded)
                    else:
                        effects = self._parts.after(
                            delivery, message, place, encoded, plan.content_type, now + self._wall
                        )
            except Exception as error:
                return self._raised(slot, error, now)
            if not plan.ignore_result:
                outcome = Outcome(
                    _SUCCESS, encoded, now + self._wall, now - slot.started, message.retries, plan.content_type
                )
        if plan.concluding:
            self._hook(slot, "on_success", value, request.id, slot.args, slot.kwargs)
            self._hook(slot, "after_return", _SUCCESS, value, request.id, slot.args, slot.kwargs, None)
        if self._log_success:
            log.debug("task %s[%s] succeeded in %.6f s", plan.name, request.id, now - slot.started)
        slot.delivery = None
        slot.succeeded += 1
        if message.guards:
            effects += freed(message)
        return Settlement(delivery.receipt, ACK, outcome, effects)

    def fail(self, slot: Slot, error: BaseException, now: float) -> Settlement:
        """The function raised `error`."""
        return self._raised(slot, error, now)

    def _raised(self, slot: Slot, error: BaseException, now: float) -> Settlement:
        """The function, or what is made of its value, raised `error`."""
        _show_from_function(error)
        delivery, plan = slot.delivery, slot.plan
        assert delivery is not None
        if slot.cancelled is delivery:
            return self._cancelled(slot, delivery, now)
        message = slot.request.message
        decision: Decision
        if isinstance(error, TimeLimitExceeded):
            decision = GiveUp(error, False)  # it would only take as long again
        else:
            decision = decide(plan.policy, message, error, now + self._wall, self._rng)
        settlement = self.decided(slot, delivery, decision, error, now)
        slot.delivery = None
        return settlement

    def decided(
        self, slot: Slot, delivery: Delivery, decision: Decision, error: BaseException, now: float
    ) -> Settlement:
        """What `decision` comes to."""
        plan, message = slot.plan, slot.request.message
        match decision:
            case Again():
                return self._again(slot, delivery, decision, now)
            case GiveUp():
                return self._gave_up(slot, delivery, decision, now)
            case Drop():
                self._note_end(plan.name, "ignored")
                effects = freed(message) + self._parts.ended(
                    delivery, message, State.REVOKED, failure(error), now + self._wall
                )
                return Settlement(delivery.receipt, ACK, None, effects)
            case Instead():
                return self._instead(slot, delivery, decision, now)
            case Refuse(requeue=True):
                self._note_end(plan.name, "rejected")
                when = now + self._wall + REQUEUE_DELAY
                return Settlement(delivery.receipt, RetryAt(when, replace(message, eta=when)))
            case Refuse():
                self._note_end(plan.name, "rejected")
                log.error("task %s[%s] was rejected: %s", plan.name, slot.request.id, decision.reason)
                outcome = self._ends.failed(plan, message, error, now - slot.started, now + self._wall)
                return self._ends.dead(delivery, message, decision.reason, outcome, now + self._wall)

    def _again(self, slot: Slot, delivery: Delivery, decision: Again, now: float) -> Settlement:
        plan, request, message = slot.plan, slot.request, decision.message
        if decision.args is not None or decision.kwargs is not None:
            args = slot.args if decision.args is None else decision.args
            kwargs = slot.kwargs if decision.kwargs is None else decision.kwargs
            try:
                body, content_type = plan.task.body(args, kwargs)
            except Exception as error:
                return self.decided(slot, delivery, GiveUp(error, False), error, now)
            message = replace(message, body=body, content_type=content_type)
            if message.options is not None and message.options.place is not None:
                place = replace(message.options.place, head=None, tail=None)  # these are all the arguments
                message.options = replace(message.options, place=place)
        wait = decision.when - now - self._wall
        self._note_end(plan.name, "snoozed" if decision.snoozed else "retried")
        if decision.snoozed:
            log.info(
                "task %s[%s] is snoozed for %.3g s, %s times by now: %r",
                plan.name,
                request.id,
                wait,
                snoozes(message),
                decision.reason,
            )
            return Settlement(delivery.receipt, RetryAt(decision.when, message))
        log.info("task %s[%s] will be retried in %.3g s: %r", plan.name, request.id, wait, decision.reason)
        if plan.hooks:
            info = ErrorInfo.of(decision.reason)
            self._hook(slot, "on_retry", decision.reason, request.id, slot.args, slot.kwargs, info)
            self._hook(slot, "after_return", State.RETRY, decision.reason, request.id, slot.args, slot.kwargs, info)
        return Settlement(delivery.receipt, RetryAt(decision.when, message))

    def _instead(self, slot: Slot, delivery: Delivery, decision: Instead, now: float) -> Settlement:
        plan, message, wall = slot.plan, slot.request.message, now + self._wall
        call = cast("Canvas[Any]", decision.call)
        if not fits(call):
            return self._spread_out(slot, delivery, call, now)
        try:
            other = replacement(plan.task.app, message, call, wall)
        except Exception as error:
            return self.decided(slot, delivery, GiveUp(error, False), error, now)
        self._note_end(plan.name, "replaced")
        log.info("task %s[%s] is replaced by %s", plan.name, slot.request.id, other.task)
        return Settlement(delivery.receipt, RetryAt(wall if other.eta is None else other.eta, other))

    def _spread_out(self, slot: Slot, delivery: Delivery, canvas: Canvas[Any], now: float) -> Settlement:
        """A canvas in its place: the task ends, and says where its result will be."""
        plan, message, name = slot.plan, slot.request.message, self._public_id(delivery.key)
        try:
            end, effects = instead(plan.task.app, canvas, message, name)
        except Exception as error:
            return self.decided(slot, delivery, GiveUp(error, False), error, now)
        self._note_end(plan.name, "replaced")
        log.info("task %s[%s] is replaced by %s", plan.name, name, type(canvas).__name__)
        outcome = None if plan.ignore_result else moved(end, now + self._wall)
        return Settlement(delivery.receipt, ACK, outcome, effects + freed(message))

    def _beside(self, slot: Slot, delivery: Delivery, value: bytes) -> tuple[Effect, ...]:
        """What it has added to its chord, after its value."""
        plan, request = slot.plan, slot.request
        return beside(
            plan.task.app, delivery.graph, request.added, request.message, request.id, value, plan.content_type
        )

    def _gave_up(self, slot: Slot, delivery: Delivery, decision: GiveUp, now: float) -> Settlement:
        plan, request, error = slot.plan, slot.request, decision.error
        self._note_end(plan.name, "failed")
        if decision.expected:
            log.info("task %s[%s] failed as expected: %r", plan.name, request.id, error)
        else:
            log.error("task %s[%s] failed: %r", plan.name, request.id, error, exc_info=error)
        if plan.hooks:
            info = ErrorInfo.of(error)
            self._hook(slot, "on_failure", error, request.id, slot.args, slot.kwargs, info)
            self._hook(slot, "after_return", State.FAILURE, error, request.id, slot.args, slot.kwargs, info)
        outcome = self._ends.failed(plan, request.message, error, now - slot.started, now + self._wall)
        return self._ends.dead(delivery, request.message, summary(error), outcome, now + self._wall)

    def _cancelled(self, slot: Slot, delivery: Delivery, now: float) -> Settlement:
        self._note_end(slot.plan.name, "revoked")
        log.info("task %s[%s] was revoked while it ran", slot.plan.name, slot.request.id)
        error = TaskRevoked("revoked while it ran")
        slot.delivery = slot.cancelled = None
        return self._ends.revoked(delivery, slot.request.message, error, now - slot.started, now + self._wall)

    def give_up(self, slot: Slot, delivery: Delivery, error: BaseException, now: float) -> Settlement:
        """The final failure of a run that this process ends itself; its function does not return."""
        plan, message = slot.plan, slot.request.message
        self._note_end(plan.name, "failed")
        outcome = self._ends.failed(plan, message, error, now - slot.started, now + self._wall)
        dead = self._ends.dead(delivery, message, summary(error), outcome, now + self._wall)
        return self._ends.over(plan, delivery, dead)

    def revoke(self, slot: Slot, delivery: Delivery, now: float) -> Settlement:
        """The end of a revoked run that this process ends itself; its function does not return."""
        self._note_end(slot.plan.name, "revoked")
        error = TaskRevoked("revoked while it ran")
        ended = self._ends.revoked(delivery, slot.request.message, error, now - slot.started, now + self._wall)
        return self._ends.over(slot.plan, delivery, ended)

    # -- parts

    def _hook(self, slot: Slot, name: str, *args: Any) -> None:
        """Call a hook if the task has it. What it raises is logged, and changes nothing."""
        if name not in slot.plan.hooks:
            return
        try:
            getattr(slot.plan.task, name)(*args)
        except BaseException:  # `SystemExit`, too: the run has an end already, and it must be settled
            log.exception("hook %s of task %s[%s] failed", name, slot.plan.name, slot.request.id)

    def before_start(self, slot: Slot) -> None:
        """Call the hook `before_start`."""
        self._hook(slot, "before_start", slot.request.id, slot.args, slot.kwargs)


def _show_from_function(error: BaseException) -> None:
    """Begin the traceback where the function does: our own frames only get in the way."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("penstock."):
        traceback = traceback.tb_next
    if traceback is not None:
        error.__traceback__ = traceback
