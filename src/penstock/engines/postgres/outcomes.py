"""Stored outcomes: rows of up to 64 neighbours each, as migrations/0001_tables.sql describes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from penstock import shedding
from penstock.codec import failure
from penstock.engines.postgres.naming import BUCKET
from penstock.errors import DecodeError, TaskRevoked
from penstock.message import VERSION, Message
from penstock.outcome import Outcome, State

SHED = b"shed "
"""How the body of a row begins whose only task was shed: a mark (see `reason_of`), the queue and the task's name
follow, line by line. No list of entries begins so."""
_LOW = (1 << BUCKET) - 1
_encode = msgspec.msgpack.encode
_Entry = tuple[str, bytes, float, float, int, str, str]
_decode = msgspec.msgpack.Decoder(list[_Entry]).decode


class Packed(NamedTuple):
    """The columns of the rows to insert."""

    buckets: list[int]
    masks: list[int]
    values: list[bytes]


class Stored(NamedTuple):
    task: str | None
    worker: str | None
    outcome: Outcome
    queue: str | None = None


def pack_outcomes(outcomes: Iterable[tuple[int, str, Outcome]]) -> Packed:
    """The rows for (number, task's name, outcome)."""
    packed = Packed([], [], [])
    bucket, mask = -1, 0
    entries: list[_Entry] = []
    for number, task, one in sorted(outcomes, key=_number):
        if number >> BUCKET != bucket:
            _add(packed, bucket, mask, entries)
            bucket, mask, entries = number >> BUCKET, 0, []
        mask |= 1 << (number & _LOW)
        entries.append((one.state.value, one.value, one.done, one.runtime, one.retries, one.content_type, task))
    _add(packed, bucket, mask, entries)
    return packed


def _number(entry: tuple[int, str, Outcome]) -> int:
    return entry[0]


def _add(packed: Packed, bucket: int, mask: int, entries: list[_Entry]) -> None:
    if entries:
        packed.buckets.append(bucket)
        packed.masks.append(signed(mask))
        packed.values.append(_encode(entries))


def signed(mask: int) -> int:
    """The mask as a bigint."""
    return mask - (1 << 64) if mask >> 63 else mask


def find(rows: Sequence[Any], number: int) -> Stored | None:
    """The first outcome of `number` among rows (bucket, mask, worker, body, at) in the order of their nr. Raises
    `DecodeError`."""
    bit = 1 << (number & _LOW)
    for bucket, mask, worker, body, at in rows:
        if bucket == number >> BUCKET and mask & bit:
            if body is None:
                return Stored(None, None, Outcome(State.REVOKED, failure(TaskRevoked("revoked")), at))
            if body.startswith(SHED):
                return _shed(body, at)
            return _read(body, (mask & (bit - 1)).bit_count(), worker)
    return None


def _read(body: bytes, place: int, worker: str) -> Stored:
    try:
        state, value, done, runtime, retries, encoding, task = _decode(body)[place]
        return Stored(task or None, worker or None, Outcome(State(state), value, done, runtime, retries, encoding))
    except (msgspec.MsgspecError, IndexError, ValueError) as error:
        raise DecodeError(f"stored results are damaged: {error}") from error


def _shed(body: bytes, at: float) -> Stored:
    mark, queue, task = body.removeprefix(SHED).decode("utf-8", "replace").split("\n", 2)
    outcome = shedding.outcome(Message(VERSION, task, b""), reason_of(mark, queue), at)
    assert outcome is not None  # this call does not ignore it
    return Stored(task, None, outcome, queue)


def reason_of(mark: str, queue: str) -> str:
    """What is said of a task of `queue` that was shed. `mark`: the policy, the unit, the limit and the priority."""
    overflow, unit, limit, priority = mark.split(" ")
    return shedding.reason(overflow, queue, unit, int(limit), int(priority))


def without(mask: int, body: bytes | None, number: int) -> tuple[int, bytes | None]:
    """A row without the outcome of `number`; a mask of 0: nothing is left."""
    bit = 1 << (number & _LOW)
    left = mask & ~signed(bit)
    if body is None or body.startswith(SHED):
        return left, None
    entries = _decode(body)
    del entries[(mask & (bit - 1)).bit_count()]
    return left, _encode(entries)
