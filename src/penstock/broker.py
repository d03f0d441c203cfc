"""The contract of a message broker, and the one dispatch that every call to it goes through.

Obligations of an implementation:
- `publish` answers only when the messages are in durable storage, or raises. Never a silent drop.
- Everything in one `Settlement` is committed, or nothing, where `features.atomic_settle` says so.
- A receipt whose lease is lost is answered with `LeaseLost`, and nothing of its settlement is done.
- Driver errors become `penstock.errors`, in one place per engine.
Methods are coroutines, run by `Engine.run` (blocking callers) or `Engine.arun` (awaiting callers), never otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from penstock.delivery import Delivery, Receipt, Settlement
from penstock.errors import ConfigError, MessageTooLarge
from penstock.message import HIGHEST, LOWEST, Message
from penstock.queue import Queue, QueueInfo

Key = str | int
"""A task's key in its engine: its public id, or a number from which `public_id` makes it when somebody asks."""


class Features(Struct, frozen=True):
    """What an engine keeps by itself, atomically. What is missing here is refused when it is declared, never faked."""

    engine: str
    atomic_settle: bool
    """Verdict, outcome and effects of a settlement commit together, with the results of the same server."""
    atomic_batch: int
    """A publish of up to this many messages is accepted whole or refused whole; also the most that one call may
    carry."""
    effects: frozenset[str]
    guards: frozenset[str]
    delay: bool = True
    priority: bool = True
    bound: bool = True
    partition: bool = True
    revoke_queued: bool = True
    durability: str = "power"
    """What an accepted message survives: "power", "process", or "memory"."""
    max_message: int = 16 << 20
    """Bytes of one packed message."""


class Accepted(Struct, frozen=True, gc=False):
    key: Key


class Duplicate(Struct, frozen=True, gc=False):
    """A message with this id (or this `Dedup` key) was accepted before; nothing was added."""

    key: Key


class Conflict(Struct, frozen=True, gc=False):
    """The `Unique` key is held, by the task `key`; nothing was added."""

    unique: str
    key: Key | None


class Full(Struct, frozen=True, gc=False):
    """The queue's bound is reached; nothing was added. `unit` is "tasks" or "bytes"."""

    queue: str
    depth: int
    limit: int
    unit: str
    retry_after: float


class Unknown(Struct, frozen=True, gc=False):
    """The outcome is not known (the connection broke after sending). Publish again with the same `id`."""

    id: str


Answer = Accepted | Duplicate | Conflict | Full | Unknown


class Demand(Struct, frozen=True):
    """What a worker can start now. `queues` in order of preference, `limit` in tasks, `lease` and `wait` in seconds:
    with `wait` the step may take that long for a first message to come, and is cut short by `interrupt`."""

    queues: tuple[str, ...]
    limit: int
    worker: str
    lease: float = 30.0
    wait: float = 0.0
    max_bytes: int = 8 << 20
    namespace: str = ""


class Done(Struct, frozen=True, gc=False):
    """Committed."""


class LeaseLost(Struct, frozen=True, gc=False):
    """The lease had gone to somebody else (or ended); nothing was committed."""


DONE = Done()
LEASE_LOST = LeaseLost()


class Step(Struct, gc=False):
    """`settled` answers the settlements in their order; `deliveries` are the newly leased."""

    settled: Sequence[Done | LeaseLost]
    deliveries: Sequence[Delivery]


class Held(Struct, frozen=True):
    until: float


class Lost(Struct, frozen=True):
    pass


class Cancelled(Struct, frozen=True):
    """Still held, but revoked: end it (`terminate`: even in the middle), settle it as REVOKED."""

    terminate: bool


Lease = Held | Lost | Cancelled


class Broker(Protocol):
    @property
    def features(self) -> Features: ...

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """Accept messages durably. At most `features.atomic_batch` of them: if one is refused as `Full`, all are that
        are not `Duplicate` or `Conflict`. A message with `id=None` is given one. Raises `BrokerUnavailable` when
        `timeout` seconds passed and nothing was done, `StoreFull`, or `OutcomeUnknown`."""
        ...

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        """Settle, and reserve up to `want.limit` messages, in one transaction where the engine can."""
        ...

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        """Keep leases for `lease` more seconds from now; tells what was lost or revoked."""
        ...

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        """Ready + leased + delayed messages. `None`: the engine cannot tell. 0 for a queue that was never used."""
        ...

    def public_id(self, key: Key) -> str:
        """The id that users see of the task `key`. Pure; no I/O."""
        ...

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        """Note, before the function runs, that this worker's `slot` starts `receipt` (`None`: it runs nothing now),
        so that it survives the death of this process. Called on the hot path: no round trip."""
        ...

    def interrupt(self) -> None:
        """Cut short the waiting steps of this process. Safe in a signal handler."""
        ...


class DeadLetter(Struct, frozen=True):
    """A message that was given up, with the reason. `message` is `None` when it cannot be read; `raw` is then all
    there is."""

    id: str
    queue: str
    reason: str
    died: float
    message: Message | None
    raw: bytes = b""


class Peeked(Struct, frozen=True):
    """A waiting message, looked at without taking it. `state` is "ready", "leased" or "delayed"."""

    id: str
    state: str
    message: Message | None
    due: float | None = None


class Inspectable(Protocol):
    """What people and consoles do to queues; never on the hot path. Lists are bounded by `limit`."""

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        """Create the queues, or change their bounds."""
        ...

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]: ...

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]: ...

    async def purge(self, queue: str, namespace: str = "") -> int:
        """Drop what is ready or delayed (leased tasks go on); returns how many. Their callers see REVOKED."""
        ...

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]: ...

    async def retry_dead(self, ids: Sequence[str]) -> int:
        """Put dead letters back into their queues with fresh counts; returns how many."""
        ...

    async def drop_dead(self, ids: Sequence[str]) -> int: ...


class Call(Struct, frozen=True):
    """One call of a broker verb, as observers see it. `seconds` includes waiting; `items` counts messages or
    receipts."""

    verb: str
    items: int
    seconds: float
    error: BaseException | None


Observer = Callable[[Call], None]


class Dispatch:
    """The broker that everybody holds: it checks what all engines must refuse, and reports each call to the
    observers."""

    def __init__(self, broker: Broker, observers: Sequence[Observer] = ()) -> None:
        self._broker = broker
        self._observers = tuple(observers)
        self.features = broker.features
        self.public_id = broker.public_id
        self.record_start = broker.record_start
        self.interrupt = broker.interrupt

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        check_batch(self.features, batch)
        started = time.perf_counter()
        try:
            answers = await self._broker.publish(batch, timeout)
        except BaseException as error:
            self._report("publish", len(batch), started, error)
            raise
        self._report("publish", len(batch), started)
        return answers

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        started = time.perf_counter()
        try:
            step = await self._broker.step(settle, want)
        except BaseException as error:
            self._report("step", len(settle), started, error)
            raise
        self._report("step", len(settle) + len(step.deliveries), started)
        return step

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        started = time.perf_counter()
        try:
            held = await self._broker.extend(receipts, lease)
        except BaseException as error:
            self._report("extend", len(receipts), started, error)
            raise
        self._report("extend", len(receipts), started)
        return held

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        return await self._broker.depth(queue, namespace)

    def _report(self, verb: str, items: int, started: float, error: BaseException | None = None) -> None:
        if self._observers:
            call = Call(verb, items, time.perf_counter() - started, error)
            for observe in self._observers:
                observe(call)


def check_batch(features: Features, batch: Sequence[Message]) -> None:
    """Raise before anything is sent: a batch that is too large, a priority out of range, a guard that the engine
    lacks."""
    if len(batch) > features.atomic_batch:
        raise MessageTooLarge(
            f"{len(batch):,} messages in one batch; {features.engine} accepts {features.atomic_batch:,} at once"
        )
    for message in batch:
        if len(message.body) > features.max_message:
            raise MessageTooLarge(
                f"task {message.task!r}: the arguments take {len(message.body):,} bytes, {features.engine} accepts "
                f"{features.max_message:,}; store the data elsewhere and pass its key"
            )
        if not LOWEST <= message.priority <= HIGHEST:
            raise ConfigError(f"priority must be between {LOWEST} and {HIGHEST}, not {message.priority!r}")
        if message.guards:
            for guard in message.guards:
                if type(guard).__name__ not in features.guards:
                    raise ConfigError(f"the {features.engine} engine has no {type(guard).__name__} guard")
