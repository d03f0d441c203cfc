"""The committer: the only code that knows whether queue and results live in one place."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from penstock.apart import MARK, elsewhere, revoked
from penstock.broker import LEASE_LOST, Broker, Cancelled, Demand, Full, Key, Lease, Lost, Step, Unknown
from penstock.clock import Clock
from penstock.delivery import ACK, Delivery, Receipt, Release, RetryAt, Settlement
from penstock.effects import Effect, Publish, Put
from penstock.engine import Engine
from penstock.errors import BrokerError, OutcomeUnknown, Unsupported
from penstock.message import Message
from penstock.outcome import Outcome, Report

PUBLISH_TIMEOUT = 30.0
SETTLING = 90.0
"""Seconds for which a lease is kept while its end is stored elsewhere: longer than all time-outs on that way."""
LOOK_AGAIN = 1.0


class Committer(Protocol):
    """Its coroutines are run by the engine that holds the tasks."""

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step: ...

    def know(self, receipt: Receipt, key: Key, task: str = "") -> None:
        """Whose receipt that is, for one that this committer did not hand out, and the task's name if it is known."""
        ...


class FusedCommitter:
    """One server holds both: the engine commits verdict, outcome and effects in one transaction."""

    def __init__(self, broker: Broker) -> None:
        self.step = broker.step

    def know(self, receipt: Receipt, key: Key, task: str = "") -> None:
        """It knows by itself."""


class OrderedCommitter:
    """Two servers: results first, then follow-ups, then the settlement: a crash in between repeats, and never loses.
    (Follow-ups first, where the broker does not know ids.)

    The lease is asked for first, and what has lost it is left alone, so that only a lease that is lost in the very
    middle lets two ends meet: then the first stored outcome stays, and ids of follow-ups, which are derived from the
    task's, make them recognised as repeats (by the broker while they are there, where `features.knows_ids`, and by
    their results when they have ended). Effects on what the broker itself holds go with the settlement, where its
    `features.effects` names them. What a broker without shared state cannot put is put beside the results.

    A broker that does not know ids may deliver what has ended, and one that remembers no revocations what was revoked:
    of such deliveries the results are asked before they are handed out, and what has ended is acknowledged instead.
    """

    def __init__(self, broker: Broker, results: Engine | None, clock: Clock) -> None:
        """`results` is `None` where none are kept."""
        self._broker = broker
        self._results = results
        self._now = clock.time
        self._native = broker.features.effects
        stateless = results is not None and not broker.features.coordination
        self._state = results if results is not None and stateless and results.broker.features.coordination else None
        """Where shared state is, if the broker keeps none."""
        self._revoked = Revoked(self._state, clock) if self._state is not None else None
        self._names: dict[Receipt, tuple[str, str]] = {}
        """The public ids and the tasks' names of what is handed out: only a delivery tells them."""
        self._again: set[Receipt] = set()
        """What is handed out, and may have been before."""
        self._undecided: list[Delivery] = []
        """Delivered, and maybe ended: the results could not be asked yet."""

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        doubtful, self._undecided = self._undecided, []
        fresh = await self._decided(doubtful)
        try:
            step = await self._settle(settle, want)
        except BaseException:
            self._undecided = self._undecided + fresh  # nobody has them yet
            raise
        if step.deliveries or fresh:
            step.deliveries = [*fresh, *await self._handed_out(step.deliveries)]
        return step

    async def _settle(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        follow_ups = [self._follow_ups(item) for item in settle]
        puts = [self._puts(item) for item in settle]
        leases = await self._leases(settle)
        held = [number for number, lease in enumerate(leases) if not isinstance(lease, Lost)]
        ends = [(settle[number], leases[number]) for number in held]
        following = {settle[number].receipt: follow_ups[number] for number in held if follow_ups[number]}
        kept = [put for number in held for put in puts[number]]
        await self._put([put for put in kept if put.value is not None])  # a graph is there before its tasks are
        over = [put for put in kept if put.value is None]
        if self._broker.features.knows_ids:
            await self._follow(following, repeats=await self._store(ends))
            await self._put(over)
        else:
            # What has ended is acknowledged when it comes again (see `_handed_out`): nothing may be left to do then.
            await self._follow(following, repeats=self._again)
            await self._put(over)
            await self._store(ends)
        step = await self._broker.step([self._bare(settle[number]) for number in held], want)
        for item in settle:
            self._names.pop(item.receipt, None)
            self._again.discard(item.receipt)
        for delivery in step.deliveries:
            self.know(delivery.receipt, delivery.key, delivery.message.task if delivery.message else "")
            if delivery.redelivered:
                self._again.add(delivery.receipt)
        if len(held) < len(settle):
            answers = iter(step.settled)
            step.settled = [LEASE_LOST if isinstance(lease, Lost) else next(answers) for lease in leases]
        return step

    async def _handed_out(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Without those that are known to have ended. What is doubtful stays for the next step when the results cannot
        be asked now: this step is done, and must not be repeated for them."""
        try:
            doubtful = await self._doubtful(deliveries)
        except BrokerError:
            doubtful = list(deliveries)
        if not doubtful:
            return deliveries
        dropped = {one.receipt for one in doubtful}
        with contextlib.suppress(BrokerError):  # then they stay for the next step
            dropped -= {one.receipt for one in await self._decided(doubtful)}
        return [one for one in deliveries if one.receipt not in dropped]

    async def _doubtful(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if self._results is None:
            return []
        if self._revoked is not None and await self._revoked.any():
            return list(deliveries)
        if self._broker.features.knows_ids:
            return []
        return [delivery for delivery in deliveries if delivery.redelivered]

    async def _decided(self, doubtful: list[Delivery]) -> list[Delivery]:
        """Those that have not ended; the others are acknowledged. Raises `BrokerError`, and keeps all of them for
        later."""
        if not doubtful or self._results is None:
            return doubtful
        try:
            ids = [self._broker.public_id(delivery.key) for delivery in doubtful]
            reports = await elsewhere(self._results, self._results.backend.fetch(ids))
            ended = ended_before(doubtful, reports)
            if ended:
                await self._broker.step([Settlement(receipt, ACK) for receipt in ended], None)
        except BrokerError:
            self._undecided = self._undecided + doubtful
            raise
        return [delivery for delivery in doubtful if delivery.receipt not in ended]

    async def _leases(self, settle: Sequence[Settlement]) -> Sequence[Lease | None]:
        """Which are still held; `None`: not asked, because the broker does all of it, and looks for itself."""
        asked = [number for number, item in enumerate(settle) if self._touches_others(item)]
        leases: list[Lease | None] = [None] * len(settle)
        if asked:
            answers = await self._broker.extend([settle[number].receipt for number in asked], SETTLING)
            for number, answer in zip(asked, answers, strict=True):
                leases[number] = answer
        return leases

    def _touches_others(self, item: Settlement) -> bool:
        # A task that is given back may turn out to be revoked, which ends it.
        gives_back = isinstance(item.verdict, Release | RetryAt)
        return item.outcome is not None or gives_back or not all(map(self._is_native, item.effects))

    async def _store(self, held: Sequence[tuple[Settlement, Lease | None]]) -> set[Receipt]:
        """Store the outcomes; the receipts of those that had one already."""
        outcomes: dict[Key, Outcome] = {}
        receipts: list[Receipt] = []
        repeats: set[Receipt] = set()
        for item, lease in held:
            outcome = item.outcome
            if outcome is None and isinstance(lease, Cancelled) and isinstance(item.verdict, Release | RetryAt):
                # The broker ends it now, and has no results to say so in.
                outcome = revoked(self._now())
            key, task = self._named(item.receipt)
            if outcome is not None:
                outcome.task = task
            if outcome is not None and key in outcomes:
                repeats.add(item.receipt)  # two copies of one task, as a repeated publish makes them, ended together
            elif outcome is not None:
                outcomes[key] = outcome
                receipts.append(item.receipt)
        if not outcomes or self._results is None:
            return set()
        stored = await elsewhere(self._results, self._results.backend.store(list(outcomes.items())))
        return repeats | {receipt for receipt, first in zip(receipts, stored, strict=True) if not first}

    async def _follow(self, following: Mapping[Receipt, list[Message]], repeats: Collection[Receipt]) -> None:
        """Publish what follows; of `repeats` only what has not ended since an earlier step published it: the broker may
        have forgotten it."""
        ids = [message.id for receipt in repeats for message in following.get(receipt, ()) if message.id is not None]
        ended = set()
        if ids and self._results is not None:
            reports = await elsewhere(self._results, self._results.backend.fetch(ids))
            ended = {report.id for report in reports if report.state.terminal}
        await self._publish([one for messages in following.values() for one in messages if one.id not in ended])

    async def _publish(self, messages: Sequence[Message]) -> None:
        size = self._broker.features.max_batch
        for start in range(0, len(messages), size):
            chunk = messages[start : start + size]
            answers = await self._broker.follow_up(chunk, PUBLISH_TIMEOUT)
            refused = [answer for answer in answers if isinstance(answer, Full | Unknown)]
            if refused:  # not settled, so not lost: the step is repeated, and recognises what was published
                raise OutcomeUnknown(f"{len(refused)} of {len(chunk)} follow-ups were not accepted: {refused[0]}")

    def _is_native(self, effect: Effect) -> bool:
        return type(effect).__name__ in self._native

    def _bare(self, item: Settlement) -> Settlement:
        native = tuple(effect for effect in item.effects if self._is_native(effect))
        return Settlement(item.receipt, item.verdict, None, native)

    def _follow_ups(self, item: Settlement) -> list[Message]:
        """What must be published apart. Raises `Unsupported`, before anything is done, for other effects that the
        broker does not have."""
        messages = []
        for effect in item.effects:
            if self._is_native(effect):
                continue
            if isinstance(effect, Publish):
                messages.append(effect.message)
            elif not (isinstance(effect, Put) and self._state is not None):
                raise Unsupported(f"the {self._broker.features.engine} engine has no {type(effect).__name__} effect")
        return messages

    def _puts(self, item: Settlement) -> list[Put]:
        """What is kept beside the results, because the broker keeps no shared state."""
        return [effect for effect in item.effects if isinstance(effect, Put) and not self._is_native(effect)]

    async def _put(self, puts: Sequence[Put]) -> None:
        for put in puts:
            if self._state is not None:
                await elsewhere(self._state, self._state.coordinator.put(put.key, put.value, put.if_version))

    def know(self, receipt: Receipt, key: Key, task: str = "") -> None:
        self._names[receipt] = (self._broker.public_id(key), task)

    def _named(self, receipt: Receipt) -> tuple[Key, str]:
        """Id and task's name. By convention the last part of a receipt is the task's key; another server knows public
        ids only."""
        known = self._names.get(receipt)
        return known if known is not None else (self._broker.public_id(receipt[-1]), "")


class Revoked:
    """Whether tasks were revoked of late, by the mark that `penstock.apart.revocation` leaves beside the results."""

    def __init__(self, results: Engine, clock: Clock) -> None:
        self._results = results
        self._clock = clock
        self._looked = float("-inf")
        self._until = 0.0

    async def any(self) -> bool:
        """Asks the server at most once in `LOOK_AGAIN` seconds."""
        now = self._clock.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            mark = await elsewhere(self._results, self._results.coordinator.get(MARK))
            self._looked = now
            self._until = 0.0 if mark is None else float(mark[0])
        return self._clock.time() < self._until


def ended_before(deliveries: Sequence[Delivery], reports: Sequence[Report]) -> dict[Receipt, Report]:
    """The deliveries of tasks that have ended, by receipt. One whose result is not known is to run: it was ignored, or
    is not there yet. Pure."""
    return {one.receipt: report for one, report in zip(deliveries, reports, strict=True) if report.state.terminal}
