"""docs/protocol-vectors.json is what both ends write and read: those bytes are out there, and must not change."""

import json
from typing import Any, get_args

import msgspec
import pytest

from penstock.message import pack, unpack
from penstock.protocol import calls
from penstock.protocol.frames import Frames, frame
from penstock.protocol.replies import Refused, Reply, Welcome, decode_reply, decode_welcome
from penstock.protocol.requests import Hello, Request, decode_hello, decode_request
from penstock.public_ids import PublicIds
from tools import protocol_vectors
from tools.protocol_vectors import LARGE, RECEIVED, SENT, SMALL, VERBS

WRITTEN: dict[str, Any] = json.loads(protocol_vectors.FILE.read_text("utf-8"))
FRAMES = WRITTEN["frames"]
SAMPLES = [*SENT.values(), *RECEIVED.values()]


def name(vector: dict[str, Any]) -> str:
    return f"{vector['from']}: {vector['name']}"


def decoder(sample: object, sender: str) -> Any:
    if sender == "client":
        return decode_hello if isinstance(sample, Hello) else decode_request
    return decode_welcome if isinstance(sample, Welcome) else decode_reply


def from_json(value: Any) -> Any:
    """What `protocol_vectors.plain` showed."""
    if isinstance(value, dict):
        if set(value) == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: from_json(one) for key, one in value.items()}
    return [from_json(one) for one in value] if isinstance(value, list) else value


def test_the_file_has_every_sample() -> None:
    assert [one["name"] for one in FRAMES] == [*SENT, *RECEIVED]
    assert [one["verb"] for one in WRITTEN["verbs"]] == list(VERBS)


@pytest.mark.parametrize(("vector", "sample"), list(zip(FRAMES, SAMPLES, strict=True)), ids=map(name, FRAMES))
def test_a_frame_in_both_directions(vector: dict[str, Any], sample: Any) -> None:
    data = bytes.fromhex(vector["frame"])
    assert frame(sample) == data
    (body,) = Frames().feed(data)
    read = decoder(sample, vector["from"])(body)
    assert type(read) is type(sample)
    assert frame(read) == data


@pytest.mark.parametrize("vector", FRAMES, ids=name)
def test_what_is_shown_of_a_frame_is_what_is_in_it(vector: dict[str, Any]) -> None:
    """Said again by a MessagePack writer that knows nothing of ours."""
    body = msgspec.msgpack.encode(from_json(vector["value"]))
    assert len(body).to_bytes(4, "big") + body == bytes.fromhex(vector["frame"])


def test_every_kind_of_frame_has_a_vector() -> None:
    assert {type(one) for one in SENT.values()} == {Hello, *get_args(Request)}
    assert {type(one) for one in RECEIVED.values()} == {Welcome, Refused, *get_args(Reply)}


def test_every_verb_has_a_vector() -> None:
    assert set(VERBS) == set(calls.VERBS)


@pytest.mark.parametrize("vector", WRITTEN["verbs"], ids=lambda one: one["verb"])
def test_a_verb_in_both_directions(vector: dict[str, Any]) -> None:
    arguments, answer = VERBS[vector["verb"]]
    verb = calls.VERBS[vector["verb"]]
    for value, read, shown in (
        (arguments, verb.read_arguments, vector["arguments"]),
        (answer, verb.read_answer, vector["answer"]),
    ):
        data = bytes.fromhex(shown["bytes"])
        assert calls.encode(value) == data == msgspec.msgpack.encode(from_json(shown["value"]))
        assert calls.encode(read(data)) == data


@pytest.mark.parametrize(
    ("vector", "sample"), list(zip(WRITTEN["messages"], (SMALL, LARGE), strict=True)), ids=["small", "large"]
)
def test_a_message_in_both_directions(vector: dict[str, Any], sample: Any) -> None:
    data = bytes.fromhex(vector["bytes"])
    assert pack(sample) == data == msgspec.msgpack.encode(from_json(vector["value"]))
    assert unpack(data) == sample


@pytest.mark.parametrize("vector", WRITTEN["public_ids"], ids=lambda one: str(one["number"]))
def test_public_ids(vector: dict[str, Any]) -> None:
    ids = PublicIds(bytes.fromhex(vector["secret"]))
    assert ids.make(vector["number"]) == vector["id"]
    assert ids.number(vector["id"]) == vector["number"]


def test_the_file_is_what_the_tool_makes() -> None:
    assert protocol_vectors.FILE.read_text("utf-8") == protocol_vectors.text(), (
        "the wire format has changed; if it may: .venv/bin/python -m tools.protocol_vectors"
    )
