"""A message: a clear envelope that brokers and consoles may read, and an opaque body that only the codec reads."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from penstock.errors import DecodeError

VERSION = 1
LOWEST, HIGHEST, NORMAL = 0, 9, 5
"""Priorities: 9 is served first."""

DEFAULT_QUEUE = "default"
GRAPH_ID = 32
"""Hex digits of a graph's id."""
START_NOTE = "started/"
MAX_NAME = 200
"""Bytes of a task's, queue's, namespace's or partition's name."""

OWN_HEADERS = "penstock-"
"""Headers that begin so are ours, and change on the way; no caller may set them, and no signature covers them."""


class Unique(Struct, array_like=True, frozen=True, tag="unique"):
    """At most one message with `key` may wait or run.

    The key is free again when the task starts (`until="start"`) or ended ("done"), or after `ttl` seconds; with "ttl"
    only then. On conflict with "skip" and "raise" the publish is answered with `Conflict`; which of the two is the
    caller's business. With "replace" and "cancel" it is accepted and takes the key, in one transaction with what
    becomes of the holder: one that waits ends as REVOKED; one that is leased goes on, without the key ("replace"), or
    is revoked as `Coordinator.revoke` does with `terminate` ("cancel").
    """

    key: str
    until: Literal["start", "done", "ttl"] = "done"
    ttl: float | None = None
    on_conflict: Literal["skip", "raise", "replace", "cancel"] = "skip"


class Dedup(Struct, array_like=True, frozen=True, tag="dedup"):
    """A second publish with `key` within `ttl` seconds is recognised as a repeat of the first, even when that has
    ended."""

    key: str
    ttl: float


class Fence(Struct, array_like=True, frozen=True, tag="fence"):
    """The message is accepted only while the coordinator's lease `name` is held with `token`."""

    name: str
    token: int


class Limit(Struct, array_like=True, frozen=True, tag="limit"):
    """How fast, and how many at a time, the messages of one namespace with this `key` are handed out, whatever their
    queue, priority, partition and worker. Nothing is refused: what may not start yet waits in its queue, keeps its
    place among those of its key, and does not hold up others.

    `rate` is in units a second, of which a message takes `cost`; up to `burst` units may be handed out at once after a
    pause, and a message that costs more waits for a full burst and is paid off afterwards. `concurrency` is how many
    may be leased at once, whatever their cost. What is retried, or comes back from a dead worker, is handed out again,
    and so pays again. What the newest message of a key says of `rate`, `burst` and `concurrency` holds for all.
    """

    key: str
    rate: float | None = None
    burst: float = 1.0
    concurrency: int | None = None
    cost: float = 1.0


Guard = Unique | Dedup | Fence | Limit


class Fate(Struct, array_like=True, frozen=True, gc=False):
    """Why a node of a graph never starts: something before it ended as `state` (FAILURE or REVOKED).

    `failure` is that error (see `codec.inherited`), `origin` the number of the node that ended so. `early`: it was
    revoked before it was published, so that those before it may still run.
    """

    state: str
    failure: bytes
    origin: int
    early: bool = False


class Place(Struct, array_like=True, frozen=True, gc=False):
    """Where a message stands in a stored graph: it is node `node` of `graph`.

    With a `head`, the message's body holds gathered values only: the arguments are `head`, the values and `tail`, or,
    where that is `None`, `head` alone. With a `fate`, it is not run any more: it ends so, and what follows it, too.
    With `instead` it stands in for a revoked task, whose outcome is stored already. With a `bridge` it is not run: it
    ends a node of this graph with what came of another graph: its "value", or "values", as `[value, [more, …]]`.
    """

    graph: str
    node: int
    head: bytes | None = None
    tail: bytes | None = None
    fate: Fate | None = None
    instead: bool = False
    bridge: str = ""

    def body(self, body: bytes) -> bytes:
        """The encoded arguments of a message with this body."""
        if self.head is None:
            return body
        return self.head if self.tail is None else self.head + body + self.tail


class Options(Struct, array_like=True, frozen=True):
    """What the caller or the task asks of the worker for this one message; `None` leaves it to the task. `place` is
    there for a part of a canvas."""

    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    max_attempts: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    place: Place | None = None


class Signed(Struct, array_like=True, frozen=True):
    """Who vouches for a message: the id of a key, and its signature of what `codec.trust` says it covers.

    `id` is that of the task for which it was signed. `digest` is the hash that was used, where the kind of key leaves a
    choice. The `eta` of a message moves with each retry, so that `start` is what was signed: the Unix time before which
    it must not run. With a `join` the body is not covered: the engine gathers it from `parts` values of that join, each
    of which carries a signature of its own.
    """

    key: str
    signature: bytes
    id: str
    digest: str = ""
    start: float | None = None
    join: str = ""
    parts: int = 0


class Message(Struct, array_like=True, gc=False):
    """One call of a task, on its way.

    `id` is `None` until an engine that mints ids itself has accepted it. `eta`, `expires` and `sent` are Unix times
    in seconds. `retries` counts errors, `attempts` counts deliveries that never came back. Times and names are the
    sender's: an engine checks them, never trusts them. `content_type` is the serialization of `body`, and "+" with its
    compression. The first two fields keep their place for ever, so that every
    version can be named.
    """

    version: int
    task: str
    body: bytes
    id: str | None = None
    queue: str = DEFAULT_QUEUE
    priority: int = NORMAL
    namespace: str = ""
    partition: str = ""
    eta: float | None = None
    expires: float | None = None
    retries: int = 0
    attempts: int = 0
    content_type: str = "json"
    guards: tuple[Guard, ...] = ()
    options: Options | None = None
    headers: dict[str, str] | None = None
    sent: float = 0.0
    signed: Signed | None = None

    @property
    def ready_since(self) -> float:
        """Since when it may start, in Unix time: what was delayed was not late before. 0 where that is not known."""
        return max(self.sent, self.eta or 0.0) if self.sent else 0.0


def graph_key(graph: str) -> str:
    """Where the graph of a canvas is in the shared state, until all of it has ended."""
    return f"canvas/{graph}"


def start_key(task_id: str) -> str:
    """Where the shared state notes that a task was started that is not to start twice, until its run has ended."""
    return f"{START_NOTE}{task_id}"


def node_id(graph: str, node: int) -> str:
    """The public id of a node whose task is published by those before it."""
    return f"{graph}.{node}"


def beginning_id(graph: str) -> str:
    """The public id of the message that begins all of a graph, where there is one."""
    return f"{graph}.begin"


def graph_of(task_id: str) -> tuple[str, int] | None:
    """The graph and node in an id that `node_id` made; `None` for any other."""
    graph, _, node = task_id.partition(".")
    is_number = node.isascii() and node.isdecimal() and len(node) < 10
    return (graph, int(node)) if is_number and is_graph_id(graph) else None


def is_graph_id(name: str) -> bool:
    return len(name) == GRAPH_ID and not name.strip("0123456789abcdef")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
pack = _encoder.encode
"""The stored and transmitted form of a message: one MessagePack array."""


def unpack(data: bytes) -> Message:
    """The message in `data`. Raises `DecodeError` when it is damaged or of a version that this release does not
    know."""
    try:
        message = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a message: {error}") from error
    if message.version > VERSION:
        raise DecodeError(f"message of version {message.version}; this release reads up to {VERSION}: upgrade penstock")
    return message
