"""The task of the raw loops: how it is written, read and run."""

from __future__ import annotations

import itertools
import os
import time
from urllib.parse import urlsplit

import msgspec

from bench.engines.peers.marks import mark

BATCH = int(os.environ.get("BENCH_BATCH", "100"))
BULK = 1_000
"""Tasks of one enqueueing round trip."""
KEEP = 86_400
"""Seconds that a result is kept."""
Envelope = tuple[int, str, tuple[tuple[int], dict[str, int]], str, float]
encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode
_answer = msgspec.json.Encoder().encode
_numbers = itertools.count()
_ours = os.urandom(8)


def new_id() -> bytes:
    return _ours + next(_numbers).to_bytes(8, "big")


def body(number: int) -> bytes:
    return encode((1, "bench.noop", ((number,), {}), "default", time.time()))


def noop(number: int) -> None:
    mark()


def run(packed: bytes) -> bytes:
    """The result of the task, as it is stored."""
    _, _, (args, kwargs), _, _ = _decode(packed)
    return _answer(noop(*args, **kwargs))  # type: ignore[func-returns-value]  # null is what is stored


def address() -> tuple[str, int]:
    parts = urlsplit(os.environ["BENCH_URL"])
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
