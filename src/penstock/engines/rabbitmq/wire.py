"""The bytes of AMQP 0-9-1. What every task pays is written here by hand; all rare methods go through pika's codec."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from pika import data, exceptions, frame, spec

GREETING = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
FRAME_HEADER = struct.Struct(">BHI")
BEAT = FRAME_HEADER.pack(HEARTBEAT, 0, 0) + bytes((END,))

# The first four bytes of a method's frame: its class and its id.
DELIVER, GET_OK, RETURN, ACK, NACK = 0x3C003C, 0x3C0047, 0x3C0032, 0x3C0050, 0x3C0078

_METHOD_ID = struct.Struct(">I")
_CONFIRM = struct.Struct(">QB")
_ACK_FRAME = struct.Struct(">BHIIQBB")
_CONTENT = struct.Struct(">BHIHHQ")

CONTENT_TYPE, HEADERS, DELIVERY_MODE, EXPIRATION, MESSAGE_ID, TYPE = 0x8000, 0x2000, 0x1000, 0x0100, 0x0080, 0x0020
OURS = CONTENT_TYPE | DELIVERY_MODE | MESSAGE_ID | TYPE
"""The properties of nearly all our messages, so that they are read without a decoder."""
PERSISTENT, TRANSIENT = b"\x02", b"\x01"


class Content(Struct, gc=False):
    """A message as it came, by `basic.deliver`, `basic.get-ok` or `basic.return`. `consumer` is empty but for the
    first; `note` is the reason of a return."""

    consumer: str
    tag: int
    redelivered: bool
    routing_key: str
    note: str = ""
    properties: bytes = b""
    body: bytes = b""


def method_frame(channel: int, method: Any) -> bytes:
    """Any method but those below."""
    packed: bytes = frame.Method(channel, method).marshal()
    return packed


def read_method(whole: bytes) -> Any:
    """The method in a whole frame."""
    _, found = frame.decode_frame(whole)
    return found.method


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    return _ACK_FRAME.pack(METHOD, channel, 13, ACK, tag, multiple, END)


def nack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Back into the queue."""
    return _ACK_FRAME.pack(METHOD, channel, 13, NACK, tag, multiple | 2, END)


def short(text: str) -> bytes:
    """Raises `ValueError` for more than 255 bytes."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def publish_method(channel: int, exchange: str, routing_key: str) -> bytes:
    """`basic.publish`, mandatory: the same bytes for all messages that take this way."""
    payload = b"\x00\x3c\x00\x28\x00\x00" + short(exchange) + short(routing_key) + b"\x01"
    return FRAME_HEADER.pack(METHOD, channel, len(payload)) + payload + bytes((END,))


def properties(
    id: str, task: str, content_type: str, headers: Mapping[str, Any] | None = None, mode: bytes = PERSISTENT
) -> bytes:
    """The property list of a message, with its flags in front."""
    if not headers:
        return OURS.to_bytes(2, "big") + short(content_type) + mode + short(id) + short(task)
    pieces: list[bytes] = []
    data.encode_table(pieces, dict(headers))
    flags = (OURS | HEADERS).to_bytes(2, "big")
    return b"".join((flags, short(content_type), *pieces, mode, short(id), short(task)))


def content_frames(channel: int, props: bytes, body: bytes, frame_max: int) -> bytes:
    """Header and body of a message."""
    size = len(body)
    header = _CONTENT.pack(HEADER, channel, 12 + len(props), 60, 0, size) + props
    room = frame_max - 8
    if 0 < size <= room:
        return b"".join((header, b"\xce", FRAME_HEADER.pack(BODY, channel, size), body, b"\xce"))
    pieces = [header, b"\xce"]
    for start in range(0, size, room):
        part = body[start : start + room]
        pieces += FRAME_HEADER.pack(BODY, channel, len(part)), part, b"\xce"
    return b"".join(pieces)


def method_id(buffer: bytes, at: int) -> int:
    found: int = _METHOD_ID.unpack_from(buffer, at)[0]
    return found


def read_confirm(buffer: bytes, at: int) -> tuple[int, bool]:
    """Tag and `multiple` of an ack or a nack."""
    tag, bits = _CONFIRM.unpack_from(buffer, at + 4)
    return tag, bool(bits & 1)


def read_deliver(buffer: bytes, at: int) -> Content:
    at += 4
    consumer, at = _short(buffer, at)
    tag, bits = _CONFIRM.unpack_from(buffer, at)
    _, at = _short(buffer, at + 9)
    return Content(consumer, tag, bool(bits), _short(buffer, at)[0])


def read_get_ok(buffer: bytes, at: int) -> Content:
    tag, bits = _CONFIRM.unpack_from(buffer, at + 4)
    _, at = _short(buffer, at + 13)
    return Content("", tag, bool(bits), _short(buffer, at)[0])


def read_return(buffer: bytes, at: int) -> Content:
    note, at = _short(buffer, at + 6)
    _, at = _short(buffer, at)
    return Content("", 0, False, _short(buffer, at)[0], note)


def _short(buffer: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + buffer[at]
    # Of a stranger's message, it may be anything.
    return buffer[at + 1 : end].decode(errors="replace"), end


def read_id(props: bytes) -> tuple[str, Mapping[str, Any]]:
    """The message id and the headers; nothing of what a stranger wrote in another way than AMQP wants it."""
    try:
        return _read_id(props)
    except (ValueError, TypeError, struct.error, IndexError, exceptions.AMQPError):
        return "", {}


def _read_id(props: bytes) -> tuple[str, Mapping[str, Any]]:
    if props[0] == OURS >> 8 and props[1] == OURS & 0xFF:
        at = 4 + props[2]  # behind content type and delivery mode
        return props[at + 1 : at + 1 + props[at]].decode(), {}
    found = spec.BasicProperties()
    found.decode(props)
    id = found.message_id or ""
    return id.encode().decode() if isinstance(id, str) else id.decode(), found.headers or {}
