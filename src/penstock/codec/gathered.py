"""Bodies that are put together from encoded parts, without reading them: a value before arguments, and many in a row.
Only JSON and MessagePack, not compressed, can be put together so.

A gathered array may hold, in place of a value, the fate of a member that gave none, or several values of one member.
In JSON these are `!"…"` and `![…]`, which no encoder writes; in MessagePack extensions of codes that only we use.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import msgspec

from penstock.codec.failures import read_failure
from penstock.codec.formats import serializer
from penstock.codec.values import JSON, MSGPACK, Format
from penstock.errors import DecodeError
from penstock.message import Fate

JOINABLE = (JSON, MSGPACK)
FATE, SEVERAL = 80, 81
"""The codes of our extensions of MessagePack."""
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


def together(items: Sequence[bytes], content_type: str) -> bytes:
    """What stands for several values of one member in a gathered array."""
    if content_type == JSON:
        return b"![" + b",".join(items) + b"]"
    return _encode(msgspec.msgpack.Ext(SEVERAL, b"".join([_array_head(len(items)), *items])))


def spread(body: bytes, content_type: str) -> bytes:
    """A gathered array without fates, with all values of all members in one row."""
    if content_type == JSON:
        return body if b"![" not in body else _json_spread(body)
    return _msgpack_spread(body)


def _json_spread(body: bytes) -> bytes:
    try:
        items = [part[2:-1] if part.startswith("![") else part for part in _json_items(body.decode())]
    except (ValueError, RecursionError):
        return body  # whoever reads the values says what is wrong with them
    return f"[{','.join(items)}]".encode()


def _msgpack_spread(body: bytes) -> bytes:
    try:
        items = [bytes(item) for item in _items(body)]
    except msgspec.DecodeError:
        return body
    row: list[bytes] = []
    for item in items:
        several = _extension(item, SEVERAL)
        row += [item] if several is None else [bytes(one) for one in _items(several)]
    return body if len(row) == len(items) else b"".join([_array_head(len(row)), *row])


def parted(value: bytes, content_type: str) -> tuple[bytes, list[bytes]]:
    """The value, and what comes after it, of `[value, [more, …]]`. Raises `DecodeError`."""
    module = msgspec.json if content_type == JSON else msgspec.msgpack
    try:
        first, more = module.decode(value, type=tuple[msgspec.Raw, list[msgspec.Raw]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"not a value and others: {error}") from error
    return bytes(first), [bytes(one) for one in more]


def fate_in(body: bytes, content_type: str) -> Fate | None:
    """The fate of a gathered array: that of its first failed member, else of its first without a value."""
    if content_type == JSON and b'!"' not in body:
        return None
    fates = list(_json_fates(body) if content_type == JSON else _msgpack_fates(body))
    return next((fate for fate in fates if fate.state == _FAILURE), fates[0] if fates else None)


def _json_fates(body: bytes) -> Iterator[Fate]:
    try:
        for part in _json_items(body.decode()):
            if part.startswith('!"'):
                yield _read(base64.b64decode(part[2:-1]))
    except (ValueError, RecursionError):
        return  # whoever reads the values says what is wrong with them


def _json_items(text: str) -> Iterator[str]:
    """The texts of the items, our marks with them. Raises `ValueError`, `RecursionError`."""
    import json  # only where a text holds our mark: the array as a whole is no JSON then

    read, place = json.JSONDecoder().raw_decode, 1
    while place < len(text) - 1:
        _, end = read(text, place + (text[place] == "!"))
        yield text[place:end]
        place = end + 1


def _msgpack_fates(body: bytes) -> Iterator[Fate]:
    try:
        items = [bytes(item) for item in _items(body)]
    except msgspec.DecodeError:
        return
    for item in items:
        data = _extension(item, FATE)
        if data is not None:
            yield _read(data)


def _extension(item: bytes, code: int) -> bytes | None:
    """What is in our extension of that code; `None` for any other value."""
    if item[0] not in _EXTENSIONS:
        return None
    extension = msgspec.msgpack.decode(item, type=msgspec.msgpack.Ext)
    return bytes(extension.data) if extension.code == code else None


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
