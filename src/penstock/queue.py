"""A queue, as it is declared: its name and its bounds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from penstock.durations import seconds
from penstock.errors import ConfigError
from penstock.message import MAX_NAME

MAX_LENGTH = 1_000_000
"""Tasks in a queue that declares no other bound."""
MAX_BYTES = 1 << 30
"""Bytes of messages in a queue that declares no other bound."""
LARGEST = (1 << 63) - 1
"""What every engine can count to."""
DIRECT = ".direct"
"""How the names of queues end that one worker serves."""
COPY = ".to."
"""Between the name of a broadcast and that of a worker."""
OVERFLOWS = ("reject", "block", "shed-lowest-priority", "drop-oldest")
"""What becomes of a publish that finds its queue full: see `Queue`."""
EXCHANGE_TYPES = ("direct", "topic", "fanout")


class Exchange(Struct, frozen=True):
    """What queues are bound to, so that one call can go to several of them. "direct": to those whose `routing_key` is
    the call's. "topic": to those whose `routing_key` fits it, with `*` for one word and `#` for any number. "fanout":
    to all. Raises `ConfigError` for a bad name or type."""

    name: str
    type: str = "direct"

    def __post_init__(self) -> None:
        check_name("exchange", self.name)
        if self.type not in EXCHANGE_TYPES:
            raise ConfigError(
                f"exchange {self.name!r}: type must be {', '.join(map(repr, EXCHANGE_TYPES))}, not {self.type!r}"
            )


class Queue(Struct, frozen=True):
    """A queue and its bounds: `max_length` in tasks, `max_bytes` in bytes of messages. New work beyond either is
    refused with `QueueFull`. Depth counts ready, leased and delayed tasks. Where `Features.overflow` says that the
    engine can, `overflow="block"` makes publishers wait for room instead, up to their time-out; "drop-oldest" moves
    the oldest tasks that are ready to the dead letters, as many as the new ones need; "shed-lowest-priority" the newest
    of the lowest priority, if that is lower than that of the new ones, which are refused otherwise. What was begun, and
    parts of a canvas, are never moved (`penstock.shedding`). `alias` is
    another name that this app calls it by; `exchange` and `routing_key` bind it. With `max_latency`, in seconds or as
    text ("2s"), its workers lower its length to what they do in that time; with `max_age` it refuses new work while
    the oldest task that is ready is older, and expires none. `warn_at` is the part of the bound, and `warn_age` the age
    of the oldest ready task, from which on its workers raise an alarm; `None`: as the app's settings have it. Raises
    `ConfigError` for a bad name or bound."""

    name: str
    max_length: int = MAX_LENGTH
    max_bytes: int = MAX_BYTES
    overflow: Literal["reject", "block", "shed-lowest-priority", "drop-oldest"] = "reject"
    alias: str = ""
    exchange: Exchange | None = None
    routing_key: str = ""
    max_latency: float | str | None = None
    max_age: float | str | None = None
    warn_at: float | None = None
    warn_age: float | str | None = None

    def __post_init__(self) -> None:
        check_name("queue", self.name)
        check_name("queue", self.alias, empty=True)
        check_name("routing key", self.routing_key, empty=True)
        if self.exchange is not None and not isinstance(self.exchange, Exchange):
            raise ConfigError(f"queue {self.name!r}: exchange must be an Exchange, not {self.exchange!r}")
        bounds: tuple[tuple[str, object], ...] = (("max_length", self.max_length), ("max_bytes", self.max_bytes))
        for setting, value in bounds:
            if isinstance(value, Exchange):
                raise ConfigError(f"queue {self.name!r}: an exchange is given by name, exchange={value!r}")
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
                raise ConfigError(f"queue {self.name!r}: {setting} must be from 1 to {LARGEST}, not {value!r}")
        if self.routing_key and self.exchange is None:
            raise ConfigError(f"queue {self.name!r}: routing_key={self.routing_key!r} needs an exchange")
        if self.overflow not in OVERFLOWS:
            raise ConfigError(
                f"queue {self.name!r}: overflow must be {', '.join(map(repr, OVERFLOWS))}, not {self.overflow!r}"
            )
        warn_at: object = self.warn_at
        if warn_at is not None and not (isinstance(warn_at, int | float) and 0 < warn_at <= 1):
            raise ConfigError(
                f"queue {self.name!r}: warn_at must be a part of the bound, above 0 and up to 1, not {self.warn_at!r}"
            )
        for setting in ("max_latency", "max_age", "warn_age"):
            given = getattr(self, setting)
            if given is not None:
                force_setattr(self, setting, seconds(f"queue {self.name!r}: {setting}", given))

    @property
    def latency(self) -> float | None:
        """`max_latency` in seconds."""
        return self.max_latency  # type: ignore[return-value]  # text was made a number

    @property
    def age(self) -> float | None:
        """`max_age` in seconds."""
        return self.max_age  # type: ignore[return-value]  # text was made a number

    @property
    def warned_age(self) -> float | None:
        """`warn_age` in seconds."""
        return self.warn_age  # type: ignore[return-value]  # text was made a number

    @property
    def governed(self) -> bool:
        """Its bound is not only what is declared: its workers change it."""
        return self.max_latency is not None or self.max_age is not None

    def bounded(self, tasks: int) -> Queue:
        """The same for an engine, which knows nothing but bounds, with another length."""
        return Queue(self.name, tasks, self.max_bytes, self.overflow)


def check_name(what: str, name: object, *, empty: bool = False) -> None:
    """Raise `ConfigError` unless `name` is printable, without spaces around it, and short enough to be a name."""
    if not isinstance(name, str) or (not name and not empty):
        raise ConfigError(f"a {what}'s name must be a non-empty string, not {name!r}")
    if len(name.encode("utf-8", "replace")) > MAX_NAME:
        raise ConfigError(f"{what} name {name[:40]!r}… is over {MAX_NAME} bytes")
    if not name.isprintable() or name != name.strip():
        raise ConfigError(f"{what} name {name!r} has control characters, or spaces around it")


def worker_direct(worker: str) -> str:
    """The queue of one worker alone, by its full name (`mail@host`). Workers of an app with `worker_direct=True` serve
    theirs first."""
    return f"{worker}{DIRECT}"


def only_worker(queue: str) -> str | None:
    """The worker that alone serves a queue of this name, if it is that of one."""
    if queue.endswith(DIRECT):
        return queue.removesuffix(DIRECT)
    return queue.partition(COPY)[2] or None


class Broadcast(Struct, frozen=True):
    """Among `task_queues`: a call to it goes to each worker that lives and serves it, once. A copy that has waited for
    `expires` seconds does not start any more."""

    name: str
    expires: float = 3600.0

    def __post_init__(self) -> None:
        check_name("broadcast", self.name)
        if COPY in self.name or ".in." in self.name:
            raise ConfigError(f"broadcast {self.name!r}: its name must not contain '.to.' or '.in.'")
        if not 0 < self.expires < float("inf"):
            raise ConfigError(f"broadcast {self.name!r}: expires must be a number of seconds above 0")

    def queue_of(self, worker: str, namespace: str) -> str:
        """Where the copy for this worker waits. A namespace is part of it: workers do not tell theirs otherwise."""
        return f"{self.name}{f'.in.{namespace}' if namespace else ''}{COPY}{worker}"


class QueueInfo(Struct, frozen=True):
    """A queue as it is now. `depth` = ready + leased + delayed; `None` where the engine cannot tell. Ages in
    seconds."""

    name: str
    namespace: str
    max_length: int
    max_bytes: int
    depth: int | None
    bytes: int | None
    ready: int | None
    leased: int | None
    delayed: int | None
    dead: int | None
    oldest_age: float | None
    enqueued: int | None
    """Tasks accepted since the queue exists; two readings give a rate."""
    settled: int | None
    """Tasks that left the queue since it exists."""
    paused: bool = False
    shed: int = 0
    """Of those that left it, how many made room for others when it was full (`Queue.overflow`)."""
    refused: int | None = None
    """Tasks that were refused as the queue was full, as far as it was told; see `penstock.pressure.refused`."""


class Bound(Struct, frozen=True, array_like=True):
    """What a governed queue has room for, for an engine that cannot keep it itself: as many `tasks` that are ready.
    `per_second` of them leave it while it is full, 0: unknown. `at`: when that was found, in Unix time."""

    tasks: int
    per_second: float
    at: float


Bounds = Callable[[str, str], Coroutine[Any, Any, Bound | None]]
"""The bound of a queue in a namespace as it is now; `None`: what is declared holds. It never raises."""
