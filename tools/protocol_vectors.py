"""Make docs/protocol-vectors.json: what each frame of the protocol is, byte for byte, for clients in other languages.

.venv/bin/python -m tools.protocol_vectors

A change of these bytes is a change of the protocol: clients and brokers that are in use speak them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.broker import (
    Accepted,
    Cancelled,
    Conflict,
    DeadLetter,
    Demand,
    Duplicate,
    Features,
    Fenced,
    Full,
    Held,
    Lost,
    Member,
    Peeked,
    Unknown,
)
from penstock.coordinator import Revoked, WorkerInfo
from penstock.delivery import ACK, RELEASE, Dead, RetryAt
from penstock.effects import Join, Publish, Put, ReleaseKey
from penstock.message import Dedup, Fence, Message, Options, Unique, pack
from penstock.outcome import Outcome, Part, Parts, Progress, Report, State
from penstock.outcome_runs import pack_plain
from penstock.protocol import NEWEST, calls, replies, requests
from penstock.protocol.frames import frame
from penstock.public_ids import PublicIds
from penstock.queue import Queue, QueueInfo

FILE = Path(__file__).parent.parent / "docs" / "protocol-vectors.json"

SECRET = bytes(range(16))
ROW = (257 << 45) + 7
"""Beyond 2^53: where a language has floats only, this one is wrong."""
TASK_ID = PublicIds(SECRET).make(ROW)
WORKER = "0123456789abcdef0123456789abcdef"
NOW = 1_790_000_000.25
BODY = b'[[2,3],{"scale":0.5}]'

SMALL = Message(1, "shop.add", BODY)
LARGE = Message(
    1,
    "shop.add",
    BODY,
    id="order-1/ä",
    queue="mail",
    priority=9,
    namespace="shop",
    partition="customer-7",
    eta=NOW + 60,
    expires=NOW + 600,
    retries=2,
    attempts=1,
    content_type="json",
    guards=(Unique("order-1", "start", 30.5, "raise"), Dedup("mail-1", 60.5), Fence("beat", 3)),
    options=Options(10.5, 5.5, True, 4, "root", "parent"),
    headers={"trace": "00-1"},
    sent=NOW,
)
DONE = Outcome(State.SUCCESS, b"5", NOW, 0.125, 1)
FAILED = Outcome(State.FAILURE, b'{"type":"ValueError","module":"builtins","message":"no"}', NOW, 0.5)
DEMAND = Demand(("mail", "default"), 16, WORKER, 30.5, 20.5)
RUN = pack_plain([DONE, DONE], [("shop.add", 0), ("shop.add", 0)]) or b""
PROGRESS = Progress(1.5, 3.5, "half")
REPORT = Report(TASK_ID, State.SUCCESS, DONE, "shop.add", "mail", 1, WORKER, PROGRESS)
INFO = QueueInfo("mail", "", 1_000_000, 1 << 30, 4, 512, 2, 1, 1, 0, 1.5, 100, 96, False)
LIVING = WorkerInfo(WORKER, "mailer", "one", 4711, 4, ("mail",), "threads", NOW, NOW + 0.5)

SENT: Mapping[str, Any] = MappingProxyType(
    {
        "hello": requests.Hello(1, NEWEST, "example 1.0", "shop", "bob", "correct horse", 2**61 + 5, False, NOW),
        "hello of a client that makes no public ids": requests.Hello(1, NEWEST, "example 1.0", names=True),
        "goodbye": requests.Goodbye(),
        "ping": requests.Ping(),
        "pong": requests.Pong(),
        "publish": requests.PublishRequest(1, 1, False, 5.5, [[pack(SMALL), pack(SMALL)], [pack(LARGE)]]),
        "publish, asked again": requests.PublishRequest(1, 1, True, 5.5, [[pack(SMALL)]]),
        "follow up": requests.FollowUpRequest(2, 2, False, [pack(LARGE)]),
        "step that asks for work": requests.StepRequest(3, 3, False, [], [], DEMAND),
        "step that ends a whole lease": requests.StepRequest(4, 4, False, [requests.FinishedLease(12, RUN)], []),
        "step with every verdict and effect": requests.StepRequest(
            5,
            5,
            False,
            [],
            [
                requests.Ended(12, ROW, ACK, DONE, (), "shop.add"),
                requests.Ended(12, ROW + 1, RetryAt(NOW + 60, SMALL, True)),
                requests.Ended(12, ROW + 2, RELEASE),
                requests.Ended(
                    12,
                    ROW + 3,
                    Dead("no"),
                    FAILED,
                    (Publish(SMALL), Join("j1", 0, b"5", 2, SMALL), ReleaseKey("order-1"), Put("k", b"v", 3)),
                ),
            ],
            DEMAND,
        ),
        "interrupt": requests.InterruptRequest(3),
        "call": requests.CallRequest(6, "depth", calls.raw(("mail", ""))),
        "watch": requests.WatchRequest([ROW, TASK_ID]),
        "unwatch": requests.UnwatchRequest([ROW, TASK_ID]),
        "listen": requests.ListenRequest([ROW, TASK_ID]),
        "unlisten": requests.UnlistenRequest([ROW]),
        "started": requests.StartedNote(WORKER, [(12, ROW)]),
    }
)
"""Frames of clients, by what they are."""

# One name in each set of the features: a set has no order, and the bytes would be others each time.
FEATURES = Features("penstock", True, 1_000, frozenset({"Publish"}), frozenset({"Unique"}))
RECEIVED: Mapping[str, Any] = MappingProxyType(
    {
        "welcome": replies.Welcome(1, "0.1.0", FEATURES, SECRET, 10.5, 16 << 20, NOW),
        "refused": replies.Refused("access-refused", "access refused for user 'bob'"),
        "published: one run of numbers": replies.Published(1, [replies.Span(ROW, 2)]),
        "published: each answer": replies.Published(
            1,
            [
                replies.Each(
                    [
                        Accepted(TASK_ID),
                        Duplicate(ROW),
                        Conflict("order-1", ROW),
                        Conflict("order-1", None),
                        Full("mail", 1_000_000, 1_000_000, "tasks", 0.25),
                        Fenced("beat"),
                        Unknown("order-1", "why"),
                    ]
                )
            ],
        ),
        "stepped": replies.Stepped(
            3,
            [True],
            [True, False],
            [
                replies.ClaimReply(13, [(ROW, 0, pack(SMALL)), (ROW + 1, 2, pack(LARGE))]),
                replies.ClaimReply(14, [(ROW + 2, 0, pack(SMALL))], NOW),
            ],
        ),
        "value": replies.Value(6, calls.raw(4)),
        "failed": replies.Failed(6, "config", "limit must be between 0 and 10,000, not -1"),
        "told": replies.Told([REPORT, Report(TASK_ID, State.FAILURE, FAILED)]),
        "blocked": replies.Blocked("mail"),
        "unblocked": replies.Unblocked(),
        "added": replies.Added([ROW, TASK_ID]),
        "ping": requests.Ping(),
        "pong": requests.Pong(),
    }
)
"""Frames of brokers."""

VERBS: Mapping[str, tuple[tuple[Any, ...], Any]] = MappingProxyType(
    {
        "extend": (([(12, ROW)], 30.5), [Held(NOW + 30), Lost(), Cancelled(True)]),
        "depth": (("mail", ""), 4),
        "store": (([(TASK_ID, DONE), (ROW, FAILED)],), [True, False]),
        "fetch": (([TASK_ID, ROW],), [REPORT, Report(TASK_ID, State.UNKNOWN)]),
        "forget": (([TASK_ID],), None),
        "note": ((ROW, PROGRESS), None),
        "append": ((ROW, 1, 2**62 + 9, [(b"5", "json"), (b"\x05", "msgpack")]), True),
        "parts": ((TASK_ID, -1, 100), Parts(7, 9, [Part(8, 1, b"\x05", "msgpack")], False)),
        "revoke": (([TASK_ID], True), [Revoked.REMOVED]),
        "join": ((LIVING,), None),
        "renew": (([WORKER], 30.5), None),
        "leave": ((WORKER,), None),
        "bury": ((WORKER, [(12, ROW)]), 1),
        "reap": ((), 0),
        "workers": ((), [LIVING]),
        "acquire": (("beat", "one", 15.5), 3),
        "resign": (("beat", "one"), None),
        "get": (("limits",), (b"v", 3)),
        "put": (("limits", b"v", 2), 3),
        "declare": (([Queue("mail", 10_000, 1 << 20, "block")], ""), None),
        "queues": ((None,), [INFO]),
        "peek": (("mail", 20, ""), [Peeked(TASK_ID, "delayed", SMALL, NOW)]),
        "purge": (("mail", ""), 4),
        "pause": (("mail", ""), True),
        "resume": (("mail", ""), False),
        "dead_letters": ((None, 100, ""), [DeadLetter(TASK_ID, "mail", "no", NOW, None, b"\xc1")]),
        "retry_dead": (([TASK_ID],), 1),
        "drop_dead": (([TASK_ID],), 1),
        "members": ((), [Member("one:7419", "leader", True, True, 0.5, 0, "")]),
        "administer": (("broker set", b'{"slow":0.5}'), b'{"slow":0.5}'),
    }
)
"""Of each verb, arguments and an answer."""


def plain(data: bytes) -> Any:
    """What a MessagePack reader without any knowledge of ours sees; bytes as `{"hex": …}`."""
    return _plain(msgspec.msgpack.decode(data))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def vectors() -> dict[str, Any]:
    return {
        "version": NEWEST,
        "frames": [*_frames("client", SENT), *_frames("broker", RECEIVED)],
        "messages": [
            {"name": name, "value": plain(pack(one)), "bytes": pack(one).hex()}
            for name, one in (("small", SMALL), ("large", LARGE))
        ],
        "verbs": [_verb(name, *both) for name, both in VERBS.items()],
        "public_ids": [
            {"secret": SECRET.hex(), "number": number, "id": PublicIds(SECRET).make(number)} for number in (1, ROW)
        ],
    }


def _frames(sender: str, samples: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, one in samples.items():
        data = frame(one)
        yield {"name": name, "from": sender, "value": plain(data[4:]), "frame": data.hex()}


def _verb(name: str, arguments: tuple[Any, ...], answer: Any) -> dict[str, Any]:
    told = {"arguments": calls.encode(arguments), "answer": calls.encode(answer)}
    return {"verb": name} | {key: {"value": plain(data), "bytes": data.hex()} for key, data in told.items()}


def text() -> str:
    """The file, one vector a line."""
    parts = []
    for key, value in vectors().items():
        if isinstance(value, list):
            lines = ",\n".join("    " + json.dumps(one, ensure_ascii=False) for one in value)
            parts.append(f"  {json.dumps(key)}: [\n{lines}\n  ]")
        else:
            parts.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
