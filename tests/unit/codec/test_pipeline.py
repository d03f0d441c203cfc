"""The whole way out and in: serialize, compress, sign, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.codec import Arguments, Pipeline, Reader, Returned, Trust, compression_of
from penstock.codec.compression import NAMES as COMPRESSIONS
from penstock.codec.compression import NONE
from penstock.codec.formats import NAMES as FORMATS
from penstock.codec.signing import Accepted, Keyring, key_id
from penstock.errors import DecodeError, SignatureError
from penstock.message import Message, pack, unpack
from tests import keys

KEY = keys.private()
KEYRING = Keyring(KEY, Accepted(key_id(KEY.public_key()), KEY.public_key()), (), "sha256")
TRUST = Trust(KEYRING, lambda: 0.0, largest=1 << 20)
PIPELINE = Pipeline(Reader(FORMATS), 1, TRUST)
CODEC = Arguments("t", lambda *args: None, reader=PIPELINE.reader)
RETURNED = Returned("t", reader=PIPELINE.reader)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)
VALUES = st.lists(TEXT | st.integers(-(2**63), 2**64 - 1) | st.none() | st.lists(st.booleans()), max_size=5)
WAYS = [(form, compression) for form in FORMATS for compression in (*COMPRESSIONS, NONE)]


def sent(args: tuple[Any, ...], form: str, compression: str) -> bytes:
    """A call as it lies in a queue."""
    encoded = CODEC.encode(args, {}, PIPELINE.serializer(form))
    body, content_type = PIPELINE.compress(encoded, form, compression_of(compression))
    message = Message(1, "t", body, id="id-1", content_type=content_type)
    TRUST.sign(message)
    return pack(message)


def received(data: bytes) -> tuple[Any, ...]:
    message = unpack(data)
    return CODEC.decode(TRUST.accepted(message, "id-1"), message.content_type)[0]


@pytest.mark.parametrize(("form", "compression"), WAYS)
@given(args=VALUES)
def test_arguments_come_through(form: str, compression: str, args: list[Any]) -> None:
    assert received(sent(tuple(args), form, compression)) == tuple(args)


@pytest.mark.parametrize(("form", "compression"), WAYS)
@given(value=VALUES)
def test_results_come_through(form: str, compression: str, value: list[Any]) -> None:
    data = RETURNED.encode(value, PIPELINE.serializer(form))
    stored, content_type = PIPELINE.result_out("id-1", data, form, compression_of(compression))
    assert content_type.endswith("+signed")
    assert RETURNED.decode(*PIPELINE.result_in("id-1", stored, content_type)) == value


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_a_stored_message_can_be_flipped_unseen(position: int, bit: int) -> None:
    """Whatever is changed, what comes out is what was sent, or nothing."""
    whole = sent(("all work and no play " * 20,), "json", "zlib")
    changed = bytearray(whole)
    changed[position % len(changed)] ^= 1 << bit
    try:
        message = unpack(bytes(changed))
        body = TRUST.accepted(message, "id-1")
    except (SignatureError, DecodeError):
        return
    assert message.task == "t"
    assert CODEC.decode(body, message.content_type)[0] == ("all work and no play " * 20,)


@pytest.mark.parametrize("content_type", ["json", "pickle", "json+gzip", "json+zlib+signed", "yaml+zlib"])
def test_another_content_type_is_another_message(content_type: str) -> None:
    message = unpack(sent(("text " * 50,), "json", "zlib"))
    with pytest.raises(SignatureError, match="does not hold"):
        TRUST.accepted(replace(message, content_type=content_type), "id-1")


def test_shared_state_is_believed_as_what_it_was_stored_as() -> None:
    plain = Pipeline(Reader(FORMATS), 1)
    lenient = Pipeline(Reader(FORMATS), 1, Trust(KEYRING, lambda: 0.0, largest=1 << 20, unsigned=True))
    stored = PIPELINE.state_out("graph", "g", b"value")
    assert plain.state_out("graph", "g", b"value") == b"value"
    for pipeline in (plain, lenient, PIPELINE):
        assert pipeline.state_in("graph", "g", stored) == b"value"
    for pipeline in (plain, lenient):
        assert pipeline.state_in("graph", "g", b"value") == b"value"
    with pytest.raises(SignatureError, match="does not have the form of a signed one"):
        PIPELINE.state_in("graph", "g", b"value")
    for pipeline in (lenient, PIPELINE):
        for kind, name, data in (
            ("group", "g", stored),
            ("graph", "h", stored),
            ("graph", "g", stored.replace(b"value", b"other")),
        ):
            with pytest.raises(SignatureError, match="does not hold"):
                pipeline.state_in(kind, name, data)
