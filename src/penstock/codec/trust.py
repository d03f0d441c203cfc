"""Which messages and results are trusted: what a signature covers, and what is refused.

A signature covers all of a message but what a broker and the workers change on its way: `attempts`, `retries`, `eta`
(of which `Signed.start` is the signed one), the place in the queue (`priority`, `partition`, `guards`) and headers of
our own. It covers the id, under which the message must be delivered: a copy under another id is a replay.
A result's covers the task's id, the content type and the value; where the outcome has no room for a signature, the two
are packed together, and the content type ends with "+signed".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from penstock.errors import ConfigError, EncodeError, MessageTooLarge, SignatureError
from penstock.message import OWN_HEADERS, Message, Signed, pack, unpack

if TYPE_CHECKING:
    from penstock.codec.signing import Keyring

EARLY = 60.0
"""Seconds by which clocks may differ, before a start ahead of its signed time is refused."""
SIGNED = "+signed"
_MOVING = frozenset(
    {"version", "id", "body", "attempts", "retries", "eta", "priority", "partition", "guards", "signed"}
)
_COVERED = tuple(name for name in Message.__struct_fields__ if name not in _MOVING)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class SignedValue(msgspec.Struct, array_like=True, frozen=True):
    """A result with its signature."""

    key: str
    digest: str
    signature: bytes
    value: bytes


_decode_value = msgspec.msgpack.Decoder(SignedValue).decode


class Trust:
    """Signs what goes out, and verifies what comes in, for an app with keys."""

    def __init__(self, keyring: Keyring, now: Callable[[], float], *, largest: int, unsigned: bool = False) -> None:
        """`largest`: bytes beyond which nothing is hashed. With `unsigned`, what has no signature at all is let in."""
        self._keyring = keyring
        self._now = now
        self._largest = largest
        self._unsigned = unsigned

    def sign(self, message: Message) -> None:
        """Sign `message`. Raises `ConfigError` when it has no id, or the own certificate is not valid now, and
        `MessageTooLarge` for what nobody would look at."""
        ring = self._keyring
        ring.check_own(self._now())
        if message.id is None:
            raise ConfigError(f"task {message.task!r}: a message without an id cannot be signed; give it one")
        if len(message.body) > self._largest:
            raise MessageTooLarge(
                f"task {message.task!r}: the arguments take {len(message.body):,} bytes, and signed messages at most "
                f"inflate_max_bytes={self._largest:,}; store the data elsewhere and pass its key"
            )
        signed = Signed(ring.key_id, b"", message.id, ring.digest, message.eta)
        message.signed = replace(signed, signature=ring.sign(_message_statement(message, signed)))

    def check(self, message: Message, task_id: str) -> None:
        """Raise `SignatureError` unless `message`, delivered as the task `task_id`, is signed for just that."""
        signed = message.signed
        if signed is None:
            if self._unsigned:
                return
            raise SignatureError("it is not signed, and only signed messages are accepted here")
        self._check_size(message.body)
        now = self._now()
        statement = _message_statement(message, signed)
        self._keyring.verify(signed.key, signed.digest, signed.signature, statement, now)
        if signed.id != task_id:
            raise SignatureError(f"it is a replay: it was signed as task {signed.id[:80]}, and is delivered as another")
        if signed.start is not None and now < signed.start - EARLY:
            raise SignatureError(
                f"it is signed to start {signed.start - now:,.0f} s from now: its eta was changed, or the clock here "
                "is behind"
            )

    def sign_result(self, task_id: str, value: bytes, content_type: str) -> tuple[bytes, str]:
        """The value with its signature, and the content type that says so. An own certificate that is not valid any
        more is the reader's to refuse: the task has run, and once the certificate is renewed its result can be read.

        Raises `EncodeError` for a result that nobody would look at."""
        if len(value) > self._largest:
            raise EncodeError(
                f"a result of {len(value):,} bytes; signed ones have at most inflate_max_bytes={self._largest:,}"
            )
        ring = self._keyring
        signature = ring.sign(_result_statement(task_id, value, content_type, ring.key_id, ring.digest))
        return _encode(SignedValue(ring.key_id, ring.digest, signature, value)), content_type + SIGNED

    def check_result(self, task_id: str, data: bytes, content_type: str) -> tuple[bytes, str]:
        """The value and its content type without the signature. Raises `SignatureError` unless it is signed as the
        result of this task."""
        if not content_type.endswith(SIGNED):
            if self._unsigned:
                return data, content_type
            raise SignatureError(f"the result of task {task_id} is not signed, and only signed ones are accepted here")
        self._check_size(data)
        content_type = content_type.removesuffix(SIGNED)
        try:
            signed = _decode_value(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SignatureError(f"the result of task {task_id} does not have the form of a signed one") from error
        statement = _result_statement(task_id, signed.value, content_type, signed.key, signed.digest)
        try:
            self._keyring.verify(signed.key, signed.digest, signed.signature, statement, self._now())
        except SignatureError as error:
            raise SignatureError(f"the result of task {task_id}: {error}") from None
        return signed.value, content_type

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._largest:
            raise SignatureError(f"{len(data):,} bytes are not looked at: inflate_max_bytes={self._largest:,}")


def unsigned_result(data: bytes, content_type: str) -> tuple[bytes, str]:
    """A result without its signature, for who has no keys to verify it. Raises `SignatureError` for a damaged one."""
    if not content_type.endswith(SIGNED):
        return data, content_type
    try:
        return _decode_value(data).value, content_type.removesuffix(SIGNED)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SignatureError("the result does not have the form of a signed one") from error


def _message_statement(message: Message, signed: Signed) -> bytes:
    """What is signed. All fields that are not named as moving are in it, so that a new one is covered, too."""
    # As the receiver sees it: what was an int where a float is meant has become one on the way.
    seen = unpack(pack(replace(message, body=b"", signed=None)))
    fields: dict[str, Any] = {name: getattr(seen, name) for name in _COVERED}
    fields["headers"] = {name: text for name, text in (seen.headers or {}).items() if not name.startswith(OWN_HEADERS)}
    present = {name: value for name, value in fields.items() if value not in (None, "", {})}
    return _encode(("penstock message", signed.key, signed.digest, signed.id, signed.start, present, message.body))


def _result_statement(task_id: str, value: bytes, content_type: str, key: str, digest: str) -> bytes:
    return _encode(("penstock result", key, digest, task_id, content_type, value))
