"""What a broker sends: answers, which begin with their request's number, and what it pushes."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Features, Fenced, Full, Unknown
from penstock.outcome import Report
from penstock.protocol.requests import Ping, Pong


class Welcome(Struct, array_like=True, tag=101):
    """The answer to a hello. `secret` makes public ids of numbers (see `penstock.public_ids`); `heartbeat`: seconds of
    silence after which each side sends a ping, and three of which it takes for the end. `time` is the broker's
    clock, which counts for leases and delays. `user`: who has signed in."""

    version: int
    server: str
    features: Features
    secret: bytes
    heartbeat: float
    max_frame: int
    time: float
    user: str = ""


class Refused(Struct, array_like=True, tag=102):
    """The broker ends the connection, and why. `code` is a name of `penstock.protocol.refusals`."""

    code: str
    text: str


class Span(Struct, array_like=True, tag="span"):
    """`count` accepted messages, numbered from `first`."""

    first: int
    count: int


class Each(Struct, array_like=True, tag="each"):
    answers: list[Accepted | Duplicate | Conflict | Full | Fenced | Unknown]


class Published(Struct, array_like=True, tag=110):
    number: int
    batches: list[Span | Each]


class ClaimReply(Struct, array_like=True):
    """Deliveries under one lease: (row, attempts, packed message). `let_go`: when their limit let them go, if they have
    one."""

    token: int
    rows: list[tuple[int, int, bytes]]
    let_go: float | None = None


class Stepped(Struct, array_like=True, tag=112):
    """`finished` and `ended` answer those of the request: done, or `False`, the lease was lost."""

    number: int
    finished: list[bool]
    ended: list[bool]
    claims: list[ClaimReply]


class Value(Struct, array_like=True, tag=120):
    number: int
    value: Raw


class Failed(Struct, array_like=True, tag=121):
    """Nothing was done. `code` is a name of `penstock.protocol.refusals`."""

    number: int
    code: str
    text: str


class Told(Struct, array_like=True, tag=130):
    """Reports of watched tasks that have ended."""

    reports: list[Report]


class Blocked(Struct, array_like=True, tag=131):
    """`queue` is full, and its publishers are made to wait: nothing of this connection is read for now."""

    queue: str


class Unblocked(Struct, array_like=True, tag=132):
    pass


class Added(Struct, array_like=True, tag=133):
    """Parts of these tasks may have come, or they have ended: look again. The keys are as they were listened for."""

    keys: list[int | str]


Reply = Ping | Pong | Refused | Published | Stepped | Value | Failed | Told | Blocked | Unblocked | Added
decode_welcome = msgspec.msgpack.Decoder(Welcome | Refused).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def span_or_each(answers: list[Answer]) -> Span | Each:
    """The shortest form of a batch's answers."""
    first = answers[0] if answers else None
    if type(first) is Accepted and type(first.key) is int:
        start = first.key
        for number, answer in enumerate(answers):
            if type(answer) is not Accepted or answer.key != start + number:
                break
        else:
            return Span(start, len(answers))
    return Each(answers)


def answers_of(batch: Span | Each) -> list[Answer]:
    """What `span_or_each` was given."""
    if type(batch) is Span:
        return [Accepted(key) for key in range(batch.first, batch.first + batch.count)]
    assert isinstance(batch, Each)
    return list(batch.answers)
