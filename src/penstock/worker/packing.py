"""Running tasks for an app with keys, or that compresses results: what comes in is verified before anything else looks
at it, what goes out is compressed and signed. Other apps run by the plain `Runner`, and pay nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.broker import Broker
from penstock.clock import Clock
from penstock.delivery import Delivery, RetryAt, Settlement
from penstock.effects import Publish
from penstock.errors import PenstockError, SignatureError
from penstock.message import Message
from penstock.outcome import State
from penstock.pool import Traits
from penstock.retry import GiveUp
from penstock.worker.plan import Plans
from penstock.worker.run import Runner, log
from penstock.worker.slot import Slot

if TYPE_CHECKING:
    from penstock.app import Penstock


def runner_of(app: Penstock, plans: Plans, broker: Broker, worker: str, clock: Clock, traits: Traits) -> Runner:
    """The runner that the app's settings ask for."""
    if app.pipeline.trust is None and app.pipeline.compression(app.conf.result_compression) is None:
        return Runner(plans, broker, worker, clock, traits=traits)
    return PackingRunner(app, plans, broker, worker, clock, traits)


class PackingRunner(Runner):
    def __init__(
        self, app: Penstock, plans: Plans, broker: Broker, worker: str, clock: Clock, traits: Traits | None = None
    ) -> None:
        super().__init__(plans, broker, worker, clock, traits=traits)
        self._pipeline = app.pipeline
        self._trust = app.pipeline.trust
        self._compression = app.pipeline.compression(app.conf.result_compression)

    def prepare(self, slot: Slot, delivery: Delivery, now: float) -> Settlement | None:
        message = delivery.message
        if message is not None and self._trust is not None:
            try:
                self._trust.check(message, self._public_id(delivery.key))
            except SignatureError as error:
                return self._distrusted(delivery, message, error, now)
        return super().prepare(slot, delivery, now)

    def _distrusted(self, delivery: Delivery, message: Message, error: SignatureError, now: float) -> Settlement:
        log.error("task %s[%s] is not trusted: %s", message.task, self._public_id(delivery.key), error)
        return self._dead(delivery, message, str(error), self._failure(error, 0.0, message.retries, now))

    def succeed(self, slot: Slot, value: Any, now: float) -> Settlement:
        delivery = slot.delivery
        assert delivery is not None
        return self._packed(slot, delivery, super().succeed(slot, value, now), now)

    def fail(self, slot: Slot, error: BaseException, now: float) -> Settlement:
        delivery = slot.delivery
        assert delivery is not None
        return self._packed(slot, delivery, super().fail(slot, error, now), now)

    def _packed(self, slot: Slot, delivery: Delivery, settlement: Settlement, now: float) -> Settlement:
        """The settlement as it leaves this process. The errors and revocations in it stay as they are: brokers write
        them, too, and have no keys."""
        outcome = settlement.outcome
        try:
            if outcome is not None and outcome.state is State.SUCCESS:
                outcome.value, outcome.content_type = self._pipeline.result_out(
                    slot.request.id, outcome.value, outcome.content_type, self._compression
                )
            self._sign(slot, settlement)
        except PenstockError as error:
            return self._gave_up(slot, delivery, GiveUp(error, False), now)
        return settlement

    def _sign(self, slot: Slot, settlement: Settlement) -> None:
        """Sign what follows, and the message of a retry if its arguments are new: else its signature holds."""
        if self._trust is None:
            return
        for effect in settlement.effects:
            if isinstance(effect, Publish):
                self._trust.sign(effect.message)
        verdict, before = settlement.verdict, slot.request.message
        if isinstance(verdict, RetryAt) and verdict.message is not None and verdict.message.body is not before.body:
            verdict.message.id = slot.request.id
            self._trust.sign(verdict.message)
