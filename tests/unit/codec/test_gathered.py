"""Bodies put together from encoded parts."""

from __future__ import annotations

import contextlib
import pickle
import zlib
from typing import Any

import pytest

from penstock.codec import around, check_encoded, fate_in, fate_item, inherited, read_failure, serializer, transcoded
from penstock.codec.failures import failure
from penstock.effects import array
from penstock.errors import DecodeError
from penstock.message import Fate

FAILED, REVOKED = Fate("FAILURE", b'{"type":"!\\""}', 3), Fate("REVOKED", b"{}", 4)
FORMATS = ("json", "msgpack")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 70_000])
def test_a_value_goes_before_the_arguments(form: str, count: int) -> None:
    codec, args = serializer(form), list(range(count))
    head, tail = around(codec.encode((args, {"x": [1]})), form)
    body = head + codec.encode({"value": ["first"]}) + tail
    assert codec.decoder().decode(body) == [[{"value": ["first"]}, *args], {"x": [1]}]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([1, "two", [3]], None),
        ([1, FAILED, 2], FAILED),
        ([REVOKED, 1], REVOKED),
        ([REVOKED, FAILED], FAILED),
        (['!"', {"a": ',!"'}, '[!"\\'], None),
        (['!"', FAILED, '!"'], FAILED),
        ([], None),
    ],
)
def test_a_failed_member_is_found(form: str, items: list[Any], found: Fate | None) -> None:
    codec = serializer(form)
    encoded = [fate_item(item, form) if isinstance(item, Fate) else codec.encode(item) for item in items]
    assert fate_in(array(encoded, form), form) == found


@pytest.mark.parametrize("body", [b'[!"', b'!"', b'[1,!"x"]', b'["!\\"', b'\xff!"', b'[!"AAAA"]'])
def test_what_is_no_gathered_array_is_left_to_who_reads_it(body: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert fate_in(body, "json") is None
    assert fate_in(b"\xc1\xc1", "msgpack") is None


def test_a_value_in_another_format() -> None:
    assert transcoded(b"[1]", "json", "json") == b"[1]"
    assert transcoded(b"[1]", "json", "msgpack") == b"\x91\x01"
    with pytest.raises(DecodeError, match="not json"):
        transcoded(b"[", "json", "msgpack")
    assert transcoded(b"- 1\n", "yaml", "json") == b"[1]"
    for wanted in ("yaml", "pickle", "json+zlib", "x"):
        with pytest.raises(DecodeError, match="values are put together as json or msgpack"):
            transcoded(b"[1]", "json", wanted)


def test_a_value_that_comes_in_a_message_is_read_as_json_or_msgpack_only() -> None:
    check_encoded(b"[1]", "json")
    check_encoded(b"\x91\x01", "msgpack")
    for data, form in (
        (pickle.dumps(1), "pickle"),
        (b"- 1", "yaml"),
        (zlib.compress(b"1"), "json+zlib"),
        (b"[", "json"),
    ):
        with pytest.raises(DecodeError):
            check_encoded(data, form)


def test_an_error_that_is_handed_on_is_the_same_and_small() -> None:
    try:
        raise ValueError("x" * 10_000, ["y" * 10_000])
    except ValueError as error:
        data = inherited(failure(error), "before")
    stored = read_failure(data)
    assert (stored.type, stored.args, stored.traceback) == ("ValueError", None, "before")
    assert len(data) < 2_048
    assert read_failure(inherited(b"?", "note")).type == "RemoteError"
