"""The verbs of `CallRequest`: the arguments of each, and what it answers. Both ends read them here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from penstock.broker import Cancelled, DeadLetter, Held, Lost, Member, Peeked
from penstock.coordinator import Revoked, WorkerInfo
from penstock.outcome import MOST_PARTS, Outcome, Parts, Progress, Report
from penstock.protocol.requests import MOST_PAIRS, Keys, Number, Pairs
from penstock.queue import Queue, QueueInfo

encode = msgspec.msgpack.Encoder().encode


class Verb:
    """How a verb's arguments and answer are read."""

    __slots__ = ("read_answer", "read_arguments")

    def __init__(self, arguments: Any, answer: Any) -> None:
        self.read_arguments = msgspec.msgpack.Decoder(arguments).decode
        self.read_answer = msgspec.msgpack.Decoder(answer).decode


OneKey = Number | str
Names = Annotated[list[str], Meta(max_length=MOST_PAIRS)]
Outcomes = Annotated[list[tuple[OneKey, Outcome]], Meta(max_length=MOST_PAIRS)]
Values = Annotated[list[tuple[bytes, str]], Meta(max_length=MOST_PARTS)]
Offset = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]

VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        # the broker
        "extend": Verb(tuple[Pairs, float], list[Held | Lost | Cancelled]),
        "depth": Verb(tuple[str, str], int | None),
        # results
        "store": Verb(tuple[Outcomes], list[bool]),
        "fetch": Verb(tuple[Keys], list[Report]),
        "forget": Verb(tuple[Keys], None),
        "note": Verb(tuple[OneKey, Progress], None),
        "append": Verb(tuple[OneKey, Number, Number, Values], bool),
        "parts": Verb(tuple[OneKey, Offset, Number], Parts),
        # coordination
        "revoke": Verb(tuple[Keys, bool], list[Revoked]),
        "join": Verb(tuple[WorkerInfo], None),
        "renew": Verb(tuple[Names, float], None),
        "leave": Verb(tuple[str], None),
        "bury": Verb(tuple[str, Pairs], int),
        "reap": Verb(tuple[()], int),
        "workers": Verb(tuple[()], list[WorkerInfo]),
        "acquire": Verb(tuple[str, str, float], int | None),
        "resign": Verb(tuple[str, str], None),
        "get": Verb(tuple[str], tuple[bytes, int] | None),
        "put": Verb(tuple[str, bytes | None, Number | None], int | None),
        # looking into queues
        "declare": Verb(tuple[Annotated[list[Queue], Meta(max_length=MOST_PAIRS)], str], None),
        "queues": Verb(tuple[str | None], list[QueueInfo]),
        "peek": Verb(tuple[str, Number, str], list[Peeked]),
        "purge": Verb(tuple[str, str], int),
        "pause": Verb(tuple[str, str], bool),
        "resume": Verb(tuple[str, str], bool),
        "dead_letters": Verb(tuple[str | None, Number, str], list[DeadLetter]),
        "retry_dead": Verb(tuple[Names], int),
        "drop_dead": Verb(tuple[Names], int),
        "members": Verb(tuple[()], list[Member]),
        # running the broker: a command and its arguments in JSON, an answer in JSON
        "administer": Verb(tuple[str, bytes], bytes),
    }
)


def raw(value: object) -> Raw:
    """A value as it goes into a frame."""
    return Raw(encode(value))
