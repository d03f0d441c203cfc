"""What is stored of an outcome, and what a report is made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from penstock import shedding
from penstock.engines.redis.names import queue_names
from penstock.errors import DecodeError, StoreError
from penstock.message import VERSION, Message, unpack
from penstock.outcome import Outcome, Part, Progress, Report, State

REVOKED = b"V"
"""How the records begin that the server's scripts make of what was revoked: the time, a space, the lane."""
SHED = b"S"
"""And of what was shed: the time, a mark, the lane and the task, with spaces between. A mark is the policy, the unit,
the limit and the priority."""
_size = struct.Struct(">I")


class Stored(Struct, array_like=True, gc=False):
    """A stored outcome."""

    state: State
    value: bytes
    done: float
    runtime: float
    retries: int
    content_type: str
    task: str | None
    queue: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode
_decode_part = msgspec.msgpack.Decoder(tuple[int, str, bytes]).decode
pack_progress = _encode
_progress = msgspec.msgpack.Decoder(Progress).decode


def pack_part(run: int, value: bytes, content_type: str) -> bytes:
    return _encode((run, content_type, value))


def read_part(task_id: str, index: int, record: bytes) -> Part:
    """Raises `StoreError` for bytes that are no part."""
    try:
        run, content_type, value = _decode_part(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"part {index} of {task_id!r} is damaged: {error}") from error
    return Part(index, run, value, content_type)


def pack_outcome(outcome: Outcome, task: str | None, queue: str | None) -> bytes:
    return _encode(
        Stored(
            outcome.state,
            outcome.value,
            outcome.done,
            outcome.runtime,
            outcome.retries,
            outcome.content_type,
            task,
            queue,
        )
    )


def report_of(task_id: str, record: bytes) -> Report:
    """Raises `StoreError` for bytes that are no record."""
    if record[:1] == REVOKED:
        done, _, lane = record[1:].partition(b" ")
        return Report(task_id, State.REVOKED, Outcome(State.REVOKED, b"", float(done)), None, queue_names(lane)[1])
    if record[:1] == SHED:
        return _shed(task_id, record)
    try:
        one = _decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"the stored outcome of {task_id!r} is damaged: {error}") from error
    outcome = Outcome(one.state, one.value, one.done, one.runtime, one.retries, one.content_type)
    return Report(task_id, one.state, outcome, one.task, one.queue, one.retries)


def _shed(task_id: str, record: bytes) -> Report:
    done, overflow, unit, limit, priority, lane, task = record[1:].split(b" ", 6)
    queue = queue_names(lane)[1]
    why = reason_of(b" ".join((overflow, unit, limit, priority)), queue)
    outcome = shedding.outcome(Message(VERSION, task.decode(), b""), why, float(done))
    return Report(task_id, State.FAILURE, outcome, task.decode(), queue)


def reason_of(mark: bytes, queue: str) -> str:
    """What a mark says."""
    overflow, unit, limit, priority = mark.decode().split(" ")
    return shedding.reason(overflow, queue, unit, int(limit), int(priority))


def look(task_id: str, found: list[bytes]) -> Report:
    """The report of what `results.lua` found."""
    kind = found[0]
    if kind == b"o":
        return report_of(task_id, found[1])
    if kind == b"":
        return Report(task_id, State.UNKNOWN)
    lane, message, _ = read(found[1])
    task, retries = (message.task, message.retries) if message else (None, 0)
    queue = queue_names(lane)[1]
    if kind == b"d":
        return Report(task_id, State.FAILURE, None, task, queue, retries)
    if found[4]:  # leased: within `worker.watch.HELD` it runs, or is handed back
        progress = _progress(found[3]) if found[3] else None
        return Report(task_id, State.STARTED, None, task, queue, retries, None, progress)
    return Report(task_id, State.RETRY if found[2] else State.PENDING, None, task, queue, retries)


def read(value: bytes) -> tuple[bytes, Message | None, bytes]:
    """(lane, message, packed message) of a stored value; the message is `None` when it is damaged."""
    lane, _, data = value.partition(b" ")
    try:
        return lane, unpack(data), data
    except DecodeError:
        return lane, None, data


def letters(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(id, record) of a push: each with its size before it."""
    place = 0
    while place < len(data):
        parts = []
        for _ in range(2):
            (size,) = _size.unpack_from(data, place)
            parts.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        yield parts[0].decode(), parts[1]
