"""The committer: the only code that knows whether queue and results live in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.backend import Backend
from penstock.broker import Broker, Demand, Full, Key, Step, Unknown
from penstock.delivery import Receipt, Settlement
from penstock.effects import Effect, Publish
from penstock.errors import OutcomeUnknown, Unsupported
from penstock.message import Message

PUBLISH_TIMEOUT = 30.0


class Committer(Protocol):
    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step: ...


class FusedCommitter:
    """One server holds both: the engine commits verdict, outcome and effects in one transaction."""

    def __init__(self, broker: Broker) -> None:
        self.step = broker.step


class OrderedCommitter:
    """Two servers: results first, then follow-ups, then the settlement: a crash in between repeats, and never loses.

    Ids of follow-ups are derived from the task's, and terminal results are write-once, so a repeat is recognised.
    Effects on what the broker itself holds go with the settlement, where its `features.effects` names them.
    """

    def __init__(self, broker: Broker, backend: Backend) -> None:
        self._broker = broker
        self._backend = backend
        self._native = broker.features.effects

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        bare, follow_ups = [], []
        for item in settle:
            native = tuple(effect for effect in item.effects if type(effect).__name__ in self._native)
            follow_ups += [self._follow_up(effect) for effect in item.effects if effect not in native]
            bare.append(Settlement(item.receipt, item.verdict, None, native))
        outcomes = [(_key(item.receipt), item.outcome) for item in settle if item.outcome is not None]
        if outcomes:
            await self._backend.store(outcomes)
        if follow_ups:
            answers = await self._broker.publish(follow_ups, PUBLISH_TIMEOUT)
            refused = [answer for answer in answers if isinstance(answer, Full | Unknown)]
            if refused:  # not settled, so not lost: the step is repeated, and recognises what was published
                raise OutcomeUnknown(f"{len(refused)} of {len(follow_ups)} follow-ups were not accepted: {refused[0]}")
        return await self._broker.step(bare, want)

    def _follow_up(self, effect: Effect) -> Message:
        if not isinstance(effect, Publish):
            raise Unsupported(f"the {self._broker.features.engine} engine has no {type(effect).__name__} effect")
        return effect.message


def _key(receipt: Receipt) -> Key:
    """By convention the last part of a receipt is the task's key."""
    key: Key = receipt[-1]
    return key
