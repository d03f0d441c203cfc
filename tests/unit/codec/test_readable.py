"""What people are shown of bodies and results: JSON where there is some, and never too much of it."""

from __future__ import annotations

import msgspec
import pytest

from penstock.cli.peek_queue import arguments
from penstock.codec.compression import NAMES, compressor
from penstock.codec.readable import as_json
from penstock.codec.trust import SignedValue
from penstock.message import Message

BODY = b'[["all work and no play"],{"n":5}]'


@pytest.mark.parametrize("name", NAMES)
def test_compressed_arguments_are_shown_as_a_call_is_written(name: str) -> None:
    message = Message(1, "t", compressor(name).compress(BODY), content_type=f"json+{name}")
    assert arguments(message) == '("all work and no play", n=5)'


def test_a_signed_result_is_shown_without_its_signature() -> None:
    signed = msgspec.msgpack.encode(SignedValue("key", "", b"signature", compressor("zlib").compress(b'{"n":5}')))
    assert as_json(signed, "json+zlib+signed") == b'{"n":5}'


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"\x93", "msgpack"),
        (b"junk", "json+zlib"),
        (b"junk", "json+signed"),
        (b"{}", "json+nothing"),
        (compressor("zlib").compress(bytes(2 << 20)), "json+zlib"),
    ],
    ids=["not JSON", "damaged", "not signed", "unknown", "too large"],
)
def test_what_cannot_be_shown_is_not(data: bytes, content_type: str) -> None:
    assert as_json(data, content_type) is None
    shown = arguments(Message(1, "t", data, content_type=content_type + "\x1b[2J"))
    assert shown.startswith(f"({len(data):,} bytes of {content_type}")
    assert "\x1b" not in shown
