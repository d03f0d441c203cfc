"""Which messages and values are trusted: what a signature covers, and what is refused.

A signature covers all of a message but what a broker and the workers change on its way: `attempts`, `retries`, `eta`
(of which `Signed.start` is the signed one), the place in the queue (`priority`, `partition`, `guards`) and headers of
our own. It covers the id, under which the message must be delivered: a copy under another id is a replay.

Where there is no room for a signature, it is packed with the value (`wrap`): in results, whose content type ends with
"+signed" then, in the values that a join gathers, and in whatever else is kept on a server and believed later.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from penstock.codec.values import MSGPACK
from penstock.effects import Join
from penstock.errors import ConfigError, EncodeError, MessageTooLarge, SignatureError
from penstock.message import OWN_HEADERS, Message, Signed, pack, unpack

if TYPE_CHECKING:
    from penstock.codec.signing import Keyring

EARLY = 60.0
"""Seconds by which clocks may differ, before a start ahead of its signed time is refused."""
SIGNED = "+signed"
ROOM = 2_048
"""Bytes that a signature takes at the most, with what names it."""
_MOVING = frozenset(
    {"version", "id", "body", "attempts", "retries", "eta", "priority", "partition", "guards", "signed"}
)
_COVERED = tuple(name for name in Message.__struct_fields__ if name not in _MOVING)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class SignedValue(msgspec.Struct, array_like=True, frozen=True):
    """A value with its signature."""

    key: str
    digest: str
    signature: bytes
    value: bytes


_decode_value = msgspec.msgpack.Decoder(SignedValue).decode
_decode_json_items = msgspec.json.Decoder(list[bytes]).decode
_decode_msgpack_items = msgspec.msgpack.Decoder(list[bytes]).decode


class Trust:
    """Signs what goes out, and verifies what comes in, for an app with keys."""

    def __init__(self, keyring: Keyring, now: Callable[[], float], *, largest: int, unsigned: bool = False) -> None:
        """`largest`: bytes beyond which nothing is hashed. With `unsigned`, what has no signature at all is let in."""
        self._keyring = keyring
        self._now = now
        self._largest = largest
        self._unsigned = unsigned

    @property
    def key_id(self) -> str:
        """The id of the key that signs here."""
        return self._keyring.key_id

    @property
    def others(self) -> str:
        """Whom else this app believes, for people."""
        ids = ", ".join(self._keyring.others) or "no other key"
        return f"{ids}, and what is not signed" if self._unsigned else ids

    @property
    def believes_unsigned(self) -> bool:
        """What has no signature at all is let in."""
        return self._unsigned

    def sign(self, message: Message, join: str = "", parts: int = 0) -> None:
        """Sign `message`; all of it, or what a `join` of so many parts will put its values into. Raises `ConfigError`
        when it has no id, or the own certificate is not valid now, and `MessageTooLarge` for what nobody would look
        at."""
        ring = self._keyring
        ring.check_own(self._now())
        if message.id is None:
            raise ConfigError(f"task {message.task!r}: a message without an id cannot be signed; give it one")
        if len(message.body) > self._largest:
            raise MessageTooLarge(
                f"task {message.task!r}: the arguments take {len(message.body):,} bytes, and signed messages at most "
                f"inflate_max_bytes={self._largest:,}; store the data elsewhere and pass its key"
            )
        signed = Signed(ring.key_id, b"", message.id, ring.digest, message.eta, join, parts)
        message.signed = replace(signed, signature=ring.sign(_message_statement(message, signed)))

    def sign_join(self, join: Join) -> Join:
        """The same with its value and the message that gathers it signed."""
        then = replace(join.then)
        self.sign(then, join.id, join.size)
        value = self.wrap("part", f"{join.id}/{join.index}", join.value)
        return replace(join, value=_as_item(value, then.content_type), then=then)

    def accepted(self, message: Message, task_id: str) -> bytes:
        """The body of `message`, which was delivered as the task `task_id`. Raises `SignatureError` unless it is signed
        for just that."""
        signed = message.signed
        if signed is None:
            if self._unsigned:
                return message.body
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
        return self.gathered(message, signed) if signed.join else message.body

    def gathered(self, message: Message, signed: Signed) -> bytes:
        """The body of values whose signatures hold, each in its place. Raises `SignatureError`."""
        if not message.body:
            return b""  # they took too much together, and the engine left them out (see `Join`)
        items = _items(message.body, message.content_type)
        if len(items) != signed.parts:
            raise SignatureError(f"it gathers {len(items):,} values, and is signed for {signed.parts:,}")
        parts = [self.unwrap("part", f"{signed.join}/{index}", item) for index, item in enumerate(items)]
        return _array(parts, message.content_type)

    def wrap(self, kind: str, name: str, value: bytes, content_type: str = "") -> bytes:
        """`value` with a signature that says what it is: of which kind, of whom, and in which form. An own certificate
        that is not valid any more is the reader's to refuse: once it is renewed, what was wrapped can be read.

        Raises `EncodeError` for what nobody would look at."""
        if len(value) > self._largest:
            raise EncodeError(
                f"a {kind} of {len(value):,} bytes; signed ones have at most inflate_max_bytes={self._largest:,}"
            )
        ring = self._keyring
        signature = ring.sign(_statement(kind, ring.key_id, ring.digest, name, content_type, value))
        return _encode(SignedValue(ring.key_id, ring.digest, signature, value))

    def unwrap(self, kind: str, name: str, data: bytes, content_type: str = "") -> bytes:
        """The value that was wrapped as just that. Raises `SignatureError`."""
        self._check_size(data)
        try:
            signed = _decode_value(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SignatureError(f"the {kind} {name[:80]} does not have the form of a signed one") from error
        statement = _statement(kind, signed.key, signed.digest, name, content_type, signed.value)
        try:
            self._keyring.verify(signed.key, signed.digest, signed.signature, statement, self._now())
        except SignatureError as error:
            raise SignatureError(f"the {kind} {name[:80]}: {error}") from None
        return signed.value

    def result(self, task_id: str, data: bytes, content_type: str) -> tuple[bytes, str]:
        """The value and its content type without the signature. Raises `SignatureError` unless it is signed as the
        result of this task."""
        return self._stored("result", task_id, data, content_type)

    def partial(self, task_id: str, run: int, data: bytes, content_type: str) -> tuple[bytes, str]:
        """The same of a part that this run of the task published."""
        return self._stored("partial", f"{task_id}/{run}", data, content_type)

    def _stored(self, kind: str, name: str, data: bytes, content_type: str) -> tuple[bytes, str]:
        if content_type.endswith(SIGNED):
            content_type = content_type.removesuffix(SIGNED)
            return self.unwrap(kind, name, data, content_type), content_type
        if self._unsigned:
            return data, content_type
        raise SignatureError(f"the {kind} of task {name} is not signed, and only signed ones are accepted here")

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._largest + ROOM:
            raise SignatureError(f"{len(data):,} bytes are not looked at: inflate_max_bytes={self._largest:,}")


def wrapped_value(data: bytes) -> bytes | None:
    """What was wrapped, by whomever; `None` for what was not."""
    try:
        return _decode_value(data).value
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def unsigned_result(data: bytes, content_type: str) -> tuple[bytes, str]:
    """A result without its signature, for who has no keys to verify it. Raises `SignatureError` for a damaged one."""
    if not content_type.endswith(SIGNED):
        return data, content_type
    value = wrapped_value(data)
    if value is None:
        raise SignatureError("the result does not have the form of a signed one")
    return value, content_type.removesuffix(SIGNED)


def _message_statement(message: Message, signed: Signed) -> bytes:
    """What is signed. All fields that are not named as moving are in it, so that a new one is covered, too."""
    # As the receiver sees it: what was an int where a float is meant has become one on the way.
    seen = unpack(pack(replace(message, body=b"", signed=None)))
    fields: dict[str, Any] = {name: getattr(seen, name) for name in _COVERED}
    fields["headers"] = {name: text for name, text in (seen.headers or {}).items() if not name.startswith(OWN_HEADERS)}
    present = {name: value for name, value in fields.items() if value not in (None, "", {})}
    body = b"" if signed.join else message.body
    return _statement("message", signed.key, signed.digest, replace(signed, signature=b""), present, body)


def _statement(kind: str, key: str, digest: str, *said: object) -> bytes:
    return _encode((f"penstock {kind}", key, digest, *said))


def _as_item(value: bytes, content_type: str) -> bytes:
    """A wrapped value as engines can string it together with others."""
    return _encode(value) if content_type == MSGPACK else b'"' + base64.b64encode(value) + b'"'


def _items(body: bytes, content_type: str) -> list[bytes]:
    """The wrapped values of a gathered body. Raises `SignatureError`."""
    decode = _decode_msgpack_items if content_type == MSGPACK else _decode_json_items
    try:
        return decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SignatureError("its body is not made of signed values") from error


def _array(values: list[bytes], content_type: str) -> bytes:
    """The same array as an engine makes of values that are not signed."""
    if content_type == MSGPACK:
        return b"\xdd" + len(values).to_bytes(4, "big") + b"".join(values)
    return b"[" + b",".join(values) + b"]"
