"""The contract of a message broker, and what is refused because an engine cannot do it.

Obligations of an implementation:
- `publish` answers only when the messages are in durable storage, or raises. Never a silent drop.
- Everything in one `Settlement` is committed, or nothing, where `features.atomic_settle` says so.
- A receipt whose lease is lost is answered with `LeaseLost`, and nothing of its settlement is done.
- A `step` that raised `OutcomeUnknown` may be repeated: what it had committed is then answered with `LeaseLost`, which
  so means "not now, and not by you", never "not at all". What it had reserved comes back when its lease ends.
- What `features` tells is known as soon as the engine is open: an engine that must ask its server does so in opening.
- Driver errors become `penstock.errors`, in one place per engine.
Methods are coroutines, run by `Engine.run` (blocking callers) or `Engine.arun` (awaiting callers), never otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from penstock.delivery import Delivery, Receipt, Settlement
from penstock.errors import ConfigError, MessageTooLarge, Unsupported
from penstock.guarding import check_guards
from penstock.message import HIGHEST, LOWEST, NORMAL, Guard, Message, Unique
from penstock.queue import Queue, QueueInfo

Key = str | int
"""A task's key in its engine: its public id, or a number from which `public_id` makes it when somebody asks."""


class Features(Struct, frozen=True):
    """What an engine keeps by itself, atomically. What is missing here is refused when it is declared, never faked."""

    engine: str
    atomic_settle: bool
    """Verdict, outcome and effects of a settlement commit together, with the results of the same server."""
    max_batch: int
    """The most messages that one call may carry."""
    effects: frozenset[str]
    """What a settlement may change with its verdict. `Publish` is kept all the same: see `Broker.follow_up`."""
    guards: frozenset[str]
    """`Unique` needs the effect `ReleaseKey` as well, with which the worker frees the key."""
    whole_batches: bool = True
    """A batch that does not fit is refused whole. Else each message is answered for itself."""
    knows_ids: bool = True
    """A repeated id is answered with `Duplicate`, while its task or its result is here. Else it is another task of the
    same id: a publish that is repeated because its outcome was `Unknown` may run twice."""
    delay: bool = True
    priority: bool = True
    bound: Literal["exact", "soft", "none"] = "exact"
    """"exact": a queue never accepts new work beyond its bound. "soft": it does, by a little and for a while, since
    its depth is counted late, or in part. "none": a declared bound is refused. Whichever, nothing is dropped."""
    follows: bool = False
    """A soft bound is what was found elsewhere (`penstock.queue.Bounds`), so that workers can change it for all
    publishers. Exact ones can be changed where there is `coordination`. Else `max_latency` and `max_age` of queues are
    refused."""
    starts: bool = True
    """`record_start` survives the process, and is charged. Else what kills its worker is never charged an attempt, and
    comes back for ever."""
    keeps_place: bool = True
    """What is released, or was lost with its worker, is delivered before what came after it. Else it comes back
    anywhere."""
    partition: bool = True
    revoke_queued: bool = True
    coordination: bool = True
    """It remembers revocations, leads elections and keeps small shared state. Else `Coordinator.revoke`, `acquire`,
    `resign`, `get` and `put` are refused, and the engine that keeps the results is asked instead."""
    results: bool = True
    """It keeps results. Else they are kept by another engine (`result_backend`), or by none."""
    leases: Literal["time", "connection"] = "time"
    """"connection": a lease is held while its worker's connection lives, whatever `lease` asks for, and the server
    takes it back by itself: `bury` and `reap` only charge what the dead had started, and tell how many that were."""
    sees_delayed: bool = True
    """What is delayed is shown by `peek` and dropped by `purge`. Else only its time brings it back."""
    overflow: frozenset[str] = frozenset({"reject"})
    """What a full queue can do with a publish (`Queue.overflow`)."""
    streams: bool = False
    """It keeps what tasks publish while they run (`Backend.append`), with the results. Else that is refused."""
    counts_refusals: bool = False
    """It tells the shared state whom its full queues refuse. Else who publishes does."""
    pause: bool = True
    """Queues can be paused. Else `Inspectable.pause` and `resume` are refused."""
    durability: str = "power"
    """What an accepted message survives: "power", "process", or "memory"."""
    max_message: int = 16 << 20
    """Bytes of one packed message."""

    @property
    def notes_starts(self) -> bool:
        """Whether the start of a task with `acks_late=False` is noted in the shared state, and its lease kept: a note
        must go with the end of its run. Else the task is acknowledged before it starts."""
        return self.coordination and "Put" in self.effects


class Accepted(Struct, frozen=True, gc=False, tag="accepted"):
    key: Key


class Duplicate(Struct, frozen=True, gc=False, tag="duplicate"):
    """A message with this id (or this `Dedup` key) was accepted before; nothing was added."""

    key: Key


class Conflict(Struct, frozen=True, gc=False, tag="conflict"):
    """The `Unique` key is held, by the task `key`; nothing was added."""

    unique: str
    key: Key | None


class Full(Struct, frozen=True, gc=False, tag="full"):
    """The queue's bound is reached; nothing was added. `unit` is "tasks" or "bytes"."""

    queue: str
    depth: int
    limit: int
    unit: str
    retry_after: float


class Fenced(Struct, frozen=True, gc=False, tag="fenced"):
    """The lease `name` of a `Fence` is not held with its token, or not any more; nothing was added."""

    name: str


class Unknown(Struct, frozen=True, gc=False, tag="unknown"):
    """The outcome is not known (the connection broke after sending). Publish again with the same `id`. `why` is what
    the engine knows of the reason, with its remedy."""

    id: str
    why: str = ""


Answer = Accepted | Duplicate | Conflict | Full | Fenced | Unknown


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
    """The lease had gone to somebody else, or ended (with this very settlement, where a step is repeated); nothing was
    committed now."""


DONE = Done()
LEASE_LOST = LeaseLost()


class Step(Struct, gc=False):
    """`settled` answers the settlements in their order; `deliveries` are the newly leased."""

    settled: Sequence[Done | LeaseLost]
    deliveries: Sequence[Delivery]


class Held(Struct, frozen=True, tag="held"):
    """Until then at least, in Unix time; `None`: as long as the connection lives, whatever `lease` asked for."""

    until: float | None


class Lost(Struct, frozen=True, tag="lost"):
    pass


class Cancelled(Struct, frozen=True, tag="cancelled"):
    """Still held, but revoked: end it (`terminate`: even in the middle), settle it as REVOKED."""

    terminate: bool


Lease = Held | Lost | Cancelled


class Broker(Protocol):
    @property
    def features(self) -> Features: ...

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """Accept new work durably. At most `features.max_batch` messages: if one is refused as `Full`, all are that
        are not `Duplicate`, `Conflict` or `Fenced`, where `features.whole_batches` says so. A message with `id=None`
        is given one. Raises `BrokerUnavailable` when `timeout` seconds passed and nothing was done, `StoreFull`, or
        `OutcomeUnknown`."""
        ...

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """Accept what follows from work that is here already, and that no settlement can carry: like `publish`, but
        never `Full`, message by message, and all with an id of their own. One with `retries` is a further try of the
        task of its id: it is no repeat where that was acknowledged without an outcome. For workers only: a server that
        knows its callers' rights keeps it from those who may only publish."""
        ...

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        """Settle, and reserve up to `want.limit` messages, in one transaction where the engine can."""
        ...

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        """Keep leases for at least `lease` more seconds from now (none becomes shorter); tells what was lost or
        revoked."""
        ...

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        """Ready + leased + delayed messages. `None`: the engine cannot tell. 0 for a queue that was never used."""
        ...

    def public_id(self, key: Key) -> str:
        """The id that users see of the task `key`. Pure; no I/O."""
        ...

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        """Note, before the function runs, that this worker's `slot` starts `receipt` (`None`: it runs nothing now),
        so that it survives the death of this process (see `features.starts`). Called on the hot path: no round trip."""
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


class Member(Struct, frozen=True):
    """A server of a replicated engine, as it is now. `role` is "leader", "replica", "witness", or
    "node" where the server does not tell; `lag` is how far it is
    behind the leader, in seconds, `lag_bytes` in bytes of its log; `None` where the server does not tell."""

    address: str
    role: str
    alive: bool = True
    in_sync: bool | None = None
    """An acknowledged write is there, too."""
    lag: float | None = None
    lag_bytes: int | None = None
    note: str = ""


class Inspectable(Protocol):
    """What people and consoles do to queues; never on the hot path. Lists are bounded by `limit`."""

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        """Create the queues, or change their bounds."""
        ...

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]: ...

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]: ...

    async def purge(self, queue: str, namespace: str = "") -> int:
        """Drop what is ready or delayed (leased tasks go on); returns how many. Their callers see REVOKED, unless
        results are on another server: nobody tells that which tasks they were, and their state there stays as it
        is."""
        ...

    async def pause(self, queue: str, namespace: str = "") -> bool:
        """Hand out no more of this queue, until `resume`: kept across restarts of everything, and made known before it
        returns. It accepts new work up to its bound, what is leased goes on, and what comes back or is due waits. A
        queue that is not there yet is made. Returns whether it was not paused before. Raises `Unsupported` without
        `features.pause`."""
        ...

    async def resume(self, queue: str, namespace: str = "") -> bool:
        """Hand it out again, and wake who waits for it; returns whether it was paused. A queue that is not there is
        not made."""
        ...

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]: ...

    async def retry_dead(self, ids: Sequence[str]) -> int:
        """Put dead letters back into their queues with fresh counts, and forget how they ended; returns how many. On
        two servers: see `penstock.apart.retry_dead`."""
        ...

    async def drop_dead(self, ids: Sequence[str]) -> int: ...

    async def members(self) -> Sequence[Member]:
        """The servers behind this engine, the leader first; none for an engine that is not replicated at all."""
        ...


REMEDIES = {
    "Unique": "leave out unique, or use an engine that has it (docs/guides/limits.md)",
    "Limit": "leave out rate_limit and concurrency_limit, or use an engine that has them (docs/guides/limits.md)",
}


def check_queues(features: Features, queues: Sequence[Queue]) -> None:
    """Raise `Unsupported` for a queue that the engine cannot keep as it is declared."""
    for queue in queues:
        if queue.overflow not in features.overflow:
            cannot = "make publishers wait" if queue.overflow == "block" else "shed tasks of a full queue"
            raise Unsupported(
                f"queue {queue.name!r}: the {features.engine} engine cannot {cannot}: leave out "
                f"overflow={queue.overflow!r}, and try again after QueueFull.retry_after, or use another engine "
                "(docs/engines/index.md)"
            )
        exact = features.bound == "exact" and features.coordination
        if queue.governed and not (exact or features.follows):
            raise Unsupported(
                f"queue {queue.name!r}: the {features.engine} engine keeps no bound that workers could change for all "
                "publishers. Where results are on Redis, PostgreSQL, SQLite or Penstock's broker (result_backend), "
                "RabbitMQ's follows what is kept there; else leave out max_latency and max_age, and give it a "
                "max_length, or use another engine (sqlite, penstock, redis, postgresql)"
            )


async def to_declare(inspect: Inspectable, queues: Sequence[Queue], namespace: str) -> Sequence[Queue]:
    """What an engine declares when it opens: all but the governed queues that are there, whose bounds their workers
    have set."""
    if not any(queue.governed for queue in queues):
        return queues
    there = {found.name for found in await inspect.queues(namespace)}
    return [queue for queue in queues if not (queue.governed and queue.name in there)]


def check_batch(features: Features, batch: Sequence[Message]) -> None:
    """Raise before anything is sent: a batch or a message that is too large, a priority out of range, and whatever the
    engine lacks."""
    if len(batch) > features.max_batch:
        raise MessageTooLarge(
            f"{len(batch):,} messages in one batch; {features.engine} accepts {features.max_batch:,} at once"
        )
    lacking = not (features.delay and features.priority and features.partition)
    for message in batch:
        if len(message.body) > features.max_message:
            raise MessageTooLarge(
                f"task {message.task!r}: the arguments take {len(message.body):,} bytes, {features.engine} accepts "
                f"{features.max_message:,}; store the data elsewhere and pass its key"
            )
        if not LOWEST <= message.priority <= HIGHEST:
            raise ConfigError(f"priority must be between {LOWEST} and {HIGHEST}, not {message.priority!r}")
        if lacking:
            check_message(features, message)
        if message.guards:
            check_guards(message.task, message.guards)
            for guard in message.guards:
                if not keeps_guard(features, guard):
                    raise Unsupported(f"task {message.task!r}: {lacking_guard(features, guard)}")


def check_message(features: Features, message: Message) -> None:
    """Raise `Unsupported` for what this message asks, and the engine lacks."""
    if message.eta is not None and not features.delay:
        raise Unsupported(f"the {features.engine} engine cannot delay a task: leave out countdown and eta")
    if message.priority != NORMAL and not features.priority:
        raise Unsupported(f"the {features.engine} engine has no priorities: leave out priority")
    if message.partition and not features.partition:
        raise Unsupported(f"the {features.engine} engine has no partitions: leave out partition")


def keeps_guard(features: Features, guard: Guard) -> bool:
    """Whether the engine has this kind of guard, with all that belongs to it."""
    needs_release = isinstance(guard, Unique)
    return type(guard).__name__ in features.guards and not (needs_release and "ReleaseKey" not in features.effects)


def lacking_guard(features: Features, guard: Guard) -> str:
    """What the engine lacks to keep this guard, and what to do about it."""
    kind = type(guard).__name__
    if kind in features.guards:
        return f"the {features.engine} engine has a {kind} guard, but no ReleaseKey effect to free its key"
    remedy = REMEDIES.get(kind)
    return f"the {features.engine} engine has no {kind} guard" + (f": {remedy}" if remedy else "")


def check_effects(features: Features, settlement: Settlement) -> None:
    """Raise `Unsupported` for effects that the engine cannot commit with a settlement."""
    for effect in settlement.effects:
        if type(effect).__name__ not in features.effects:
            raise Unsupported(f"the {features.engine} engine has no {type(effect).__name__} effect")
