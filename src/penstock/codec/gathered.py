"""Bodies that are put together from encoded parts, without reading them: a value before arguments, and many in a row.
Only JSON and MessagePack, not compressed, can be put together so.

A gathered array may hold, in place of a value, the fate of a member that gave none. In JSON that is `!"…"`, which no
encoder writes; in MessagePack an extension of a code that only we use.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import msgspec

from penstock.codec.failures import read_failure
from penstock.codec.formats import serializer
from penstock.codec.values import JSON, MSGPACK, Format
from penstock.errors import DecodeError
from penstock.message import Fate

JOINABLE = (JSON, MSGPACK)
FATE = 80
"""The code of our extension of MessagePack."""
_FAILURE = "FAILURE"
_STATES = frozenset({_FAILURE, "REVOKED"})
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Fate).decode
_pairs = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw], msgspec.Raw]).decode
_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def joinable(content_type: str) -> Format:
    """The format of parts. Raises `DecodeError` for what bodies cannot be put together of."""
    if content_type not in JOINABLE:
        raise DecodeError(f"content type {content_type[:40]!r}: values are put together as {' or '.join(JOINABLE)}")
    return serializer(content_type)


def check_encoded(data: bytes, content_type: str) -> None:
    """Raise `DecodeError` for bytes that are not one value in that format, or in one that is not joinable."""
    try:
        joinable(content_type).decoder().decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not {content_type}: {error}") from error


def transcoded(data: bytes, have: str, want: str) -> bytes:
    """One encoded value of our own as a part of a body. Raises `DecodeError`, `EncodeError`."""
    form = joinable(want)
    if have == want:
        return data
    given = serializer(have)
    try:
        value = given.decoder().decode(given.parse(data))
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"not {have}: {error}") from error
    return form.encode(value)


def around(body: bytes, content_type: str) -> tuple[bytes, bytes]:
    """What stands before and after one more first argument in the body `[[…], {…}]`."""
    if content_type == JSON:
        return b"[[", (b"]" if body.startswith(b"[[]") else b",") + body[3 if body.startswith(b"[[]") else 2 :]
    given, named = _pairs(body)
    head = b"\x92" + _array_head(len(given) + 1)
    return head, b"".join([*map(bytes, given), bytes(named)])


def _array_head(size: int) -> bytes:
    if size < 16:
        return bytes([0x90 | size])
    return b"\xdc" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xdd" + size.to_bytes(4, "big")


def fate_item(fate: Fate, content_type: str) -> bytes:
    """What stands for `fate` in a gathered array."""
    data = _encode(fate)
    if content_type == JSON:
        return b'!"' + base64.b64encode(data) + b'"'
    return _encode(msgspec.msgpack.Ext(FATE, data))


def fate_in(body: bytes, content_type: str) -> Fate | None:
    """The fate of a gathered array: that of its first failed member, else of its first without a value."""
    if content_type == JSON and b'!"' not in body:
        return None
    fates = list(_json_fates(body) if content_type == JSON else _msgpack_fates(body))
    return next((fate for fate in fates if fate.state == _FAILURE), fates[0] if fates else None)


def _json_fates(body: bytes) -> Iterator[Fate]:
    import json  # only where something failed, or a text holds our mark: the array as a whole is no JSON then

    try:
        text = body.decode()
        read, place = json.JSONDecoder().raw_decode, 1
        while place < len(text) - 1:
            failed = text[place] == "!"
            value, place = read(text, place + failed)
            if failed:
                yield _read(base64.b64decode(value))
            place += 1
    except (ValueError, RecursionError):
        return  # whoever reads the values says what is wrong with them


def _msgpack_fates(body: bytes) -> Iterator[Fate]:
    try:
        items = [bytes(item) for item in _items(body)]
    except msgspec.DecodeError:
        return
    for item in items:
        if item[0] in _EXTENSIONS:
            extension = msgspec.msgpack.decode(item, type=msgspec.msgpack.Ext)
            if extension.code == FATE:
                yield _read(bytes(extension.data))


def _read(data: bytes) -> Fate:
    """Raises `DecodeError`."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise DecodeError(f"not the fate of a member: {error}") from error


def check_fate(fate: Fate) -> None:
    """Raise `DecodeError` for what is no end of a task, or no stored error."""
    if fate.state not in _STATES:
        raise DecodeError(f"a fate is one of {', '.join(sorted(_STATES))}, not {fate.state[:20]!r}")
    read_failure(fate.failure)
