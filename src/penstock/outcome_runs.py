"""Runs of outcomes: the ends of tasks that follow each other, as one JSON array.

An entry is `[state, done, runtime, retries, task, value, encoding]`: the value in JSON, or (with an encoding) its bytes
in base64; `null` stands for one that was forgotten. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Collection

import msgspec
from msgspec import Raw

from penstock.errors import DecodeError
from penstock.outcome import Outcome, State

RUN_BYTES = 64 << 10
"""A run is cut at this size, so that reading one small result never reads megabytes."""

Entry = tuple[State, float, float, int, str, Raw, str | None]

_DAMAGE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)

encode_run = msgspec.json.Encoder().encode
_decode_run = msgspec.json.Decoder(list[Raw]).decode
_decode_entry = msgspec.json.Decoder(Entry | None).decode


def pack_plain(outcomes: Collection[Outcome], tasks: Collection[tuple[str, int]]) -> bytes | None:
    """The JSON of one run of outcomes in JSON, with their tasks' names; `None` when it needs the way of `pack_runs`."""
    entries = [
        (one.state, one.done, one.runtime, one.retries, name, Raw(one.value), None)
        for one, (name, _) in zip(outcomes, tasks, strict=True)
        if one.content_type == "json" and one.value
    ]
    value = encode_run(entries)
    return value if len(value) < RUN_BYTES and len(entries) == len(tasks) else None


def read_run(value: str | bytes) -> list[Raw]:
    """Raises `DecodeError`."""
    try:
        if isinstance(value, bytes) and not value.isascii():
            value = value.decode()  # the decoder does not look at text that it skips
        return _decode_run(value)
    except _DAMAGE as error:
        raise DecodeError(f"stored results are damaged: {error}") from error


def read_entry(entry: Raw, worker: str) -> tuple[str, str, Outcome] | None:
    """Raises `DecodeError`."""
    try:
        fields = _decode_entry(entry)
        if fields is None:
            return None
        state, done, runtime, retries, task, value, encoding = fields
        raw = bytes(value) if encoding is None else base64.b64decode(msgspec.json.decode(value, type=str))
    except _DAMAGE as error:
        raise DecodeError(f"a stored result is damaged: {error}") from error
    return task, worker, Outcome(state, raw, done, runtime, retries, encoding or "json")


def entry_of(task: str, outcome: Outcome) -> tuple[object, ...]:
    """JSON stays readable in SQL; other encodings go as base64 with their name."""
    if outcome.content_type == "json":
        return (
            outcome.state,
            outcome.done,
            outcome.runtime,
            outcome.retries,
            task,
            Raw(outcome.value or b"null"),
            None,
        )
    value = base64.b64encode(outcome.value).decode()
    return (outcome.state, outcome.done, outcome.runtime, outcome.retries, task, value, outcome.content_type)
