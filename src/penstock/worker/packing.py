"""Running tasks for an app with keys, or that compresses results: what comes in is verified before anything else looks
at it, what goes out is compressed and signed. Other apps run by the plain `Runner`, and pay nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.broker import Broker
from penstock.clock import Clock
from penstock.codec import compression_of
from penstock.delivery import Dead, Delivery, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish
from penstock.errors import MessageTooLarge, PenstockError, SignatureError
from penstock.message import Message
from penstock.metrics.counts import Counts
from penstock.outcome import State
from penstock.pool import Traits
from penstock.replaced import MOVED
from penstock.retry import GiveUp
from penstock.worker.ends import failure_of, freed
from penstock.worker.plan import Plans
from penstock.worker.run import Runner, log
from penstock.worker.slot import Slot

if TYPE_CHECKING:
    from penstock.app import Penstock


def runner_of(
    app: Penstock,
    plans: Plans,
    broker: Broker,
    worker: str,
    clock: Clock,
    traits: Traits | None,
    counts: Counts | None = None,
) -> Runner:
    """The runner that the app's settings ask for."""
    if app.pipeline.trust is None and compression_of(app.conf.result_compression) is None:
        return Runner(plans, broker, worker, clock, traits=traits, counts=counts)
    return PackingRunner(app, plans, broker, worker, clock, traits, counts)


class PackingRunner(Runner):
    def __init__(
        self,
        app: Penstock,
        plans: Plans,
        broker: Broker,
        worker: str,
        clock: Clock,
        traits: Traits | None = None,
        counts: Counts | None = None,
    ) -> None:
        super().__init__(plans, broker, worker, clock, traits=traits, counts=counts)
        self._pipeline = app.pipeline
        self._trust = app.pipeline.trust
        self._largest = broker.features.max_message
        self._compression = compression_of(app.conf.result_compression)

    def prepare(self, slot: Slot, delivery: Delivery, now: float) -> Settlement | None:
        message = delivery.message
        if message is not None and self._trust is not None:
            try:
                message.body = self._trust.accepted(message, self._public_id(delivery.key))
            except SignatureError as error:
                return self._distrusted(delivery, message, error, now)
        settlement = super().prepare(slot, delivery, now)
        if settlement is None or message is None:
            return settlement
        try:
            return self._packed(delivery, settlement)
        except PenstockError as error:
            failure = failure_of(error, 0.0, message.retries, now + self._wall)
            return self._ended(delivery, self._ends.dead(delivery, message, str(error), failure, now + self._wall))

    def _distrusted(self, delivery: Delivery, message: Message, error: SignatureError, now: float) -> Settlement:
        """Nothing follows it: where it claims to stand in a canvas is not believed either."""
        log.error("task %s[%s] is not trusted: %s", message.task, self._public_id(delivery.key), error)
        outcome = failure_of(error, 0.0, message.retries, now + self._wall)
        return Settlement(delivery.receipt, Dead(str(error)), outcome, freed(message))

    def succeed(self, slot: Slot, value: Any, now: float) -> Settlement:
        delivery = slot.delivery
        assert delivery is not None
        return self._left(slot, delivery, super().succeed(slot, value, now), now)

    def fail(self, slot: Slot, error: BaseException, now: float) -> Settlement:
        delivery = slot.delivery
        assert delivery is not None
        return self._left(slot, delivery, super().fail(slot, error, now), now)

    def give_up(self, slot: Slot, delivery: Delivery, error: BaseException, now: float) -> Settlement:
        return self._ended(delivery, super().give_up(slot, delivery, error, now))

    def revoke(self, slot: Slot, delivery: Delivery, now: float) -> Settlement:
        return self._ended(delivery, super().revoke(slot, delivery, now))

    def _left(self, slot: Slot, delivery: Delivery, settlement: Settlement, now: float) -> Settlement:
        """The settlement of a run as it leaves this process."""
        revoked = settlement.outcome is not None and settlement.outcome.state is State.REVOKED
        if revoked or isinstance(settlement.verdict, Dead):
            return self._ended(delivery, settlement)
        try:
            return self._packed(delivery, settlement)
        except PenstockError as error:
            return self._ended(delivery, self._gave_up(slot, delivery, GiveUp(error, False), now))

    def _ended(self, delivery: Delivery, settlement: Settlement) -> Settlement:
        """The settlement of what has failed or was revoked, also where nothing can be signed any more."""
        try:
            return self._signed(delivery, settlement)
        except PenstockError as error:
            log.error("nothing follows task %s, for it cannot be signed: %s", self._public_id(delivery.key), error)
            settlement.effects = tuple(one for one in settlement.effects if not isinstance(one, (Join, Publish)))
            return settlement

    def _packed(self, delivery: Delivery, settlement: Settlement) -> Settlement:
        """With its value compressed and signed, and what follows it signed. The errors and revocations in it stay as
        they are: brokers write them, too, and have no keys."""
        outcome = settlement.outcome
        if outcome is not None and outcome.state is State.SUCCESS:
            compression = None if outcome.content_type == MOVED else self._compression
            outcome.value, outcome.content_type = self._pipeline.result_out(
                self._public_id(delivery.key), outcome.value, outcome.content_type, compression
            )
        return self._signed(delivery, settlement)

    def _signed(self, delivery: Delivery, settlement: Settlement) -> Settlement:
        """With signatures of what follows, and of the message of a retry where that of its sender does not hold any
        more."""
        if self._trust is None:
            return settlement
        if settlement.effects:
            settlement.effects = tuple(map(self._signed_effect, settlement.effects))
        again = settlement.verdict.message if isinstance(settlement.verdict, RetryAt) else None
        before = delivery.message
        if again is None or before is None:
            return settlement
        if again.body is not before.body or (again.signed is not None and again.signed.join):
            again.id = self._public_id(delivery.key)
            self._trust.sign(again)
        return settlement

    def _signed_effect(self, effect: Effect) -> Effect:
        assert self._trust is not None
        if isinstance(effect, Join):
            effect = self._trust.sign_join(effect)
            if len(effect.value) > self._largest:
                raise MessageTooLarge(
                    f"the value takes {len(effect.value):,} bytes with its signature, and a message at most "
                    f"{self._largest:,}: store the data elsewhere and return its key"
                )
        if isinstance(effect, Publish):
            self._trust.sign(effect.message)
        return effect
