"""Whose word a stored schedule is, for an app with keys: a beat publishes, and signs, what it finds in the broker's
shared state, so that only who may sign may have put it there.

A signature covers the call and when it is made; not `since` and `paused`, which others change.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from msgspec.structs import replace

from penstock.beat.stored import Record
from penstock.codec import Trust
from penstock.errors import SignatureError

_KIND = "schedule"


def vouched(record: Record, trust: Trust | None) -> Record:
    """The same, signed by an app that signs."""
    if trust is None:
        return record
    return replace(record, signed=trust.wrap(_KIND, record.name, _digest(record)))


def check_vouched(record: Record, trust: Trust | None) -> None:
    """Raise `SignatureError` unless somebody whom this app believes has stored just this."""
    if trust is None or (not record.signed and trust.believes_unsigned):
        return
    if not record.signed:
        raise SignatureError("it is not signed, and only signed schedules are accepted here")
    if trust.unwrap(_KIND, record.name, record.signed) != _digest(record):
        raise SignatureError("it was changed since it was signed")


def is_vouched(record: Record, trust: Trust | None) -> bool:
    try:
        check_vouched(record, trust)
    except SignatureError:
        return False
    return True


def _digest(record: Record) -> bytes:
    return sha256(msgspec.msgpack.encode(replace(record, since=0.0, paused=False, signed=b""))).digest()
