"""The committer: the only code that knows whether queue and results live in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.apart import elsewhere
from penstock.broker import LEASE_LOST, Broker, Cancelled, Demand, Full, Key, Lease, Lost, Step, Unknown
from penstock.clock import Clock
from penstock.delivery import Receipt, Release, RetryAt, Settlement
from penstock.effects import Effect, Publish
from penstock.engine import Engine
from penstock.errors import OutcomeUnknown, Unsupported
from penstock.message import Message
from penstock.outcome import Outcome, State

PUBLISH_TIMEOUT = 30.0
SETTLING = 90.0
"""Seconds for which a lease is kept while its end is stored elsewhere: longer than all time-outs on that way."""


class Committer(Protocol):
    """Its coroutines are run by the engine that holds the tasks."""

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step: ...


class FusedCommitter:
    """One server holds both: the engine commits verdict, outcome and effects in one transaction."""

    def __init__(self, broker: Broker) -> None:
        self.step = broker.step


class OrderedCommitter:
    """Two servers: results first, then follow-ups, then the settlement: a crash in between repeats, and never loses.

    The lease is asked for first, and what has lost it is left alone, so that only a lease that is lost in the very
    middle lets two ends meet: then the first stored outcome stays, and ids of follow-ups, which are derived from the
    task's, make them recognised as repeats (where `features.knows_ids`). Effects on what the broker itself holds go
    with the settlement, where its `features.effects` names them.
    """

    def __init__(self, broker: Broker, results: Engine, clock: Clock) -> None:
        self._broker = broker
        self._results = results
        self._now = clock.time
        self._native = broker.features.effects

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        follow_ups = [self._follow_ups(item) for item in settle]
        leases = await self._leases(settle)
        held = [number for number, lease in enumerate(leases) if not isinstance(lease, Lost)]
        await self._store([(settle[number], leases[number]) for number in held])
        await self._publish([message for number in held for message in follow_ups[number]])
        step = await self._broker.step([self._bare(settle[number]) for number in held], want)
        if len(held) < len(settle):
            answers = iter(step.settled)
            step.settled = [LEASE_LOST if isinstance(lease, Lost) else next(answers) for lease in leases]
        return step

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

    async def _store(self, held: Sequence[tuple[Settlement, Lease | None]]) -> None:
        outcomes: list[tuple[Key, Outcome]] = []
        for item, lease in held:
            if item.outcome is not None:
                outcomes.append((self._key(item.receipt), item.outcome))
            elif isinstance(lease, Cancelled) and isinstance(item.verdict, Release | RetryAt):
                # The broker ends it now, and has no results to say so in.
                outcomes.append((self._key(item.receipt), Outcome(State.REVOKED, b"", self._now())))
        if outcomes:
            await elsewhere(self._results, self._results.backend.store(outcomes))

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
            if isinstance(effect, Publish) and not self._is_native(effect):
                messages.append(effect.message)
            elif not self._is_native(effect):
                raise Unsupported(f"the {self._broker.features.engine} engine has no {type(effect).__name__} effect")
        return messages

    def _key(self, receipt: Receipt) -> Key:
        """By convention the last part of a receipt is the task's key; another server knows public ids only."""
        key: Key = receipt[-1]
        return self._broker.public_id(key)
