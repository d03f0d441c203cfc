"""The verbs of `CallRequest`: the arguments of each, and what it answers. Both ends read them here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Raw

from penstock.broker import Cancelled, DeadLetter, Held, Key, Lost, Member, Peeked
from penstock.coordinator import Revoked, WorkerInfo
from penstock.outcome import Outcome, Progress, Report
from penstock.queue import Queue, QueueInfo

encode = msgspec.msgpack.Encoder().encode


class Verb:
    """How a verb's arguments and answer are read."""

    __slots__ = ("read_answer", "read_arguments")

    def __init__(self, arguments: Any, answer: Any) -> None:
        self.read_arguments = msgspec.msgpack.Decoder(arguments).decode
        self.read_answer = msgspec.msgpack.Decoder(answer).decode


Pairs = list[tuple[int, int]]

VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        # the broker
        "extend": Verb(tuple[Pairs, float], list[Held | Lost | Cancelled]),
        "depth": Verb(tuple[str, str], int | None),
        # results
        "store": Verb(tuple[list[tuple[Key, Outcome]]], list[bool]),
        "fetch": Verb(tuple[list[Key]], list[Report]),
        "forget": Verb(tuple[list[Key]], None),
        "note": Verb(tuple[Key, Progress], None),
        # coordination
        "revoke": Verb(tuple[list[Key], bool], list[Revoked]),
        "join": Verb(tuple[WorkerInfo], None),
        "renew": Verb(tuple[list[str], float], None),
        "leave": Verb(tuple[str], None),
        "bury": Verb(tuple[str, Pairs], int),
        "reap": Verb(tuple[()], int),
        "workers": Verb(tuple[()], list[WorkerInfo]),
        "acquire": Verb(tuple[str, str, float], int | None),
        "resign": Verb(tuple[str, str], None),
        "get": Verb(tuple[str], tuple[bytes, int] | None),
        "put": Verb(tuple[str, bytes | None, int | None], int | None),
        # looking into queues
        "declare": Verb(tuple[list[Queue], str], None),
        "queues": Verb(tuple[str | None], list[QueueInfo]),
        "peek": Verb(tuple[str, int, str], list[Peeked]),
        "purge": Verb(tuple[str, str], int),
        "pause": Verb(tuple[str, str], bool),
        "resume": Verb(tuple[str, str], bool),
        "dead_letters": Verb(tuple[str | None, int, str], list[DeadLetter]),
        "retry_dead": Verb(tuple[list[str]], int),
        "drop_dead": Verb(tuple[list[str]], int),
        "members": Verb(tuple[()], list[Member]),
        # running the broker: a command and its arguments in JSON, an answer in JSON
        "administer": Verb(tuple[str, bytes], bytes),
    }
)


def raw(value: object) -> Raw:
    """A value as it goes into a frame."""
    return Raw(encode(value))
