"""What a client sends. Each is an array: its kind, then the fields in this order; later versions add fields at the
end."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from penstock.broker import Demand
from penstock.delivery import Ack, Dead, Release, RetryAt
from penstock.effects import Join, Publish, Put, ReleaseKey
from penstock.outcome import Outcome

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""Of a row, a lease, a mark: what a database can hold."""
MOST_BATCHES, MOST_ITEMS, MOST_PAIRS = 64, 4_096, 10_000
"""Of one frame, at most: a list is refused by its length, before anything in it is read."""
Pairs = Annotated[list[tuple[Number, Number]], Meta(max_length=MOST_PAIRS)]
"""(token, row)."""
Bodies = Annotated[list[bytes], Meta(max_length=MOST_ITEMS)]
"""Packed messages."""
Keys = Annotated[list[Number | str], Meta(max_length=MOST_PAIRS)]
"""Rows, or public ids."""


class Hello(Struct, array_like=True, tag=1):
    """The first frame. `oldest` and `newest`: the versions that the client speaks. `secret` is a password or a token; a
    client with a certificate needs none, and who has a token need not say whose. `session` is random, new for each
    client, 0 for one that will not ask again; with `names` the broker tells tasks by their public ids. `time`: the
    client's clock, Unix time; 0: it has none. `address`: for whom a gateway signs in, if it is one that is believed."""

    oldest: int
    newest: int
    client: str
    namespace: str = "/"
    user: str = ""
    secret: str = ""
    session: Number = 0
    names: bool = False
    time: float = 0.0
    address: str = ""


class Goodbye(Struct, array_like=True, tag=2):
    """The last frame of a client that leaves of its own will."""


class Ping(Struct, array_like=True, tag=3):
    """Both sides send it after a silence, and both answer it."""


class Pong(Struct, array_like=True, tag=4):
    pass


class PublishRequest(Struct, array_like=True, tag=10):
    """New work: batches of packed messages, each whole or not at all, answered for itself. `mark` counts the requests
    of a session whose answers are to be remembered, from 1 (0: none); `again`: it was sent before. `timeout` in
    seconds."""

    number: int
    mark: Number
    again: bool
    timeout: float
    batches: Annotated[list[Bodies], Meta(max_length=MOST_BATCHES)]


class FollowUpRequest(Struct, array_like=True, tag=11):
    """What follows from work that is here: always admitted, from workers only."""

    number: int
    mark: Number
    again: bool
    batch: Bodies


class FinishedLease(Struct, array_like=True):
    """All tasks of a lease ended well: their outcomes in order, packed as `penstock.outcome_runs` says."""

    token: Number
    run: bytes


class Ended(Struct, array_like=True):
    """The end of one delivery. `task` is the task's name."""

    token: Number
    row: Number
    verdict: Ack | RetryAt | Release | Dead
    outcome: Outcome | None = None
    effects: tuple[Publish | Join | ReleaseKey | Put, ...] = ()
    task: str = ""


class StepRequest(Struct, array_like=True, tag=12):
    """Settle, and give credit: up to `want.limit` messages are delivered, at once or as they come within `want.wait`
    seconds."""

    number: int
    mark: Number
    again: bool
    finished: Annotated[list[FinishedLease], Meta(max_length=MOST_ITEMS)]
    ended: Annotated[list[Ended], Meta(max_length=MOST_ITEMS)]
    want: Demand | None = None


class InterruptRequest(Struct, array_like=True, tag=13):
    """The waiting step `number` is to be answered now."""

    number: int


class CallRequest(Struct, array_like=True, tag=20):
    """Everything else: `verb` and its arguments, see `penstock.protocol.calls`."""

    number: int
    verb: str
    arguments: Raw


class WatchRequest(Struct, array_like=True, tag=21):
    """Push the reports of these tasks when they have ended; numbers, or public ids."""

    keys: Keys


class UnwatchRequest(Struct, array_like=True, tag=22):
    keys: Keys


class ListenRequest(Struct, array_like=True, tag=24):
    """Push when parts of these tasks have come, and when they have ended. Only to a broker with `features.streams`."""

    keys: Keys


class UnlistenRequest(Struct, array_like=True, tag=25):
    keys: Keys


class StartedNote(Struct, array_like=True, tag=23):
    """What a worker runs now, as (token, row). Not answered."""

    worker: str
    pairs: Pairs


Request = (
    Ping
    | Pong
    | Goodbye
    | PublishRequest
    | FollowUpRequest
    | StepRequest
    | InterruptRequest
    | CallRequest
    | WatchRequest
    | UnwatchRequest
    | StartedNote
    | ListenRequest
    | UnlistenRequest
)

decode_hello = msgspec.msgpack.Decoder(Hello).decode
decode_request = msgspec.msgpack.Decoder(Request).decode
