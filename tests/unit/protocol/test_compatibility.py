"""A release older or newer than the other end: what it does not know is skipped, what it does not say has a default."""

from typing import Any, get_args

import msgspec
import pytest
from msgspec import NODEFAULT

from penstock.message import Message, pack, unpack
from penstock.outcome import Report
from penstock.protocol.frames import frame
from penstock.protocol.replies import Refused, Reply, Welcome, decode_reply, decode_welcome
from penstock.protocol.requests import Ended, Hello, Request, decode_hello, decode_request
from tools.protocol_vectors import RECEIVED, REPORT, SENT, SMALL

FRAMES = {f"{side} {name}": one for side, all_ in (("c", SENT), ("b", RECEIVED)) for name, one in all_.items()}
LATER: list[Any] = [17, "more", {"of": [b"it", None]}]


def decoder(name: str, sample: object) -> Any:
    if name.startswith("c"):
        return decode_hello if isinstance(sample, Hello) else decode_request
    return decode_welcome if isinstance(sample, Welcome) else decode_reply


@pytest.mark.parametrize("name", FRAMES)
def test_fields_of_a_later_version_are_skipped(name: str) -> None:
    sample = FRAMES[name]
    fields = msgspec.msgpack.decode(frame(sample)[4:])
    read = decoder(name, sample)(msgspec.msgpack.encode(fields + LATER))
    assert frame(read) == frame(sample)


def test_fields_of_an_earlier_version_have_defaults() -> None:
    hello = decode_hello(msgspec.msgpack.encode([1, 1, 1, "old"]))
    assert hello == Hello(1, 1, "old", namespace="/", user="", secret="", session=0, names=False, time=0.0)
    step = decode_request(msgspec.msgpack.encode([12, 1, 1, False, [], [[3, 4, {"type": "ack"}]]]))
    assert (step.want, step.ended[0].outcome, step.ended[0].effects) == (None, None, ())


def test_fields_that_are_added_need_a_default() -> None:
    """Those of version 1 without one. A field that comes later has one, or the older end cannot be understood."""
    needed = {
        kind.__name__: sum(one.default is NODEFAULT for one in msgspec.structs.fields(kind))
        for kind in (Hello, Welcome, Refused, Ended, *get_args(Request), *get_args(Reply))
    }
    assert needed == {
        "Hello": 3,
        "Welcome": 7,
        "Refused": 2,
        "Ended": 3,
        "Ping": 0,
        "Pong": 0,
        "Goodbye": 0,
        "Blocked": 1,
        "Unblocked": 0,
        "Told": 1,
        "Added": 1,
        "ListenRequest": 1,
        "UnlistenRequest": 1,
        "PublishRequest": 5,
        "FollowUpRequest": 4,
        "StepRequest": 5,
        "InterruptRequest": 1,
        "CallRequest": 3,
        "WatchRequest": 1,
        "UnwatchRequest": 1,
        "StartedNote": 2,
        "Published": 2,
        "Stepped": 4,
        "Value": 2,
        "Failed": 3,
    }


def test_keys_of_a_later_version_are_skipped_in_maps() -> None:
    told = msgspec.to_builtins(REPORT, builtin_types=(bytes,))
    told["outcome"]["later"] = told["later"] = LATER
    assert decode_reply(msgspec.msgpack.encode([130, [told]])).reports == [REPORT]
    assert decode_reply(msgspec.msgpack.encode([130, [{"id": "x", "state": "PENDING"}]])).reports == [
        Report("x", "PENDING")  # type: ignore[arg-type]  # what it decodes to is equal
    ]


def test_a_message_of_an_earlier_and_of_a_later_version() -> None:
    assert unpack(msgspec.msgpack.encode([1, "shop.add", b"[[],{}]"])) == Message(1, "shop.add", b"[[],{}]")
    assert unpack(msgspec.msgpack.encode(msgspec.msgpack.decode(pack(SMALL)) + LATER)) == SMALL


def test_whole_numbers_pass_for_times() -> None:
    """Some languages write 5.0 as 5."""
    request = decode_request(msgspec.msgpack.encode([10, 1, 0, False, 5, []]))
    assert request.timeout == 5.0


@pytest.mark.parametrize(
    "decode", [decode_request, decode_reply, decode_welcome, decode_hello], ids=["request", "reply", "welcome", "hello"]
)
@pytest.mark.parametrize("body", [[99, 1], [], "text", {"kind": 1}, None], ids=repr)
def test_what_is_no_frame_is_refused(decode: Any, body: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(msgspec.msgpack.encode(body))


def nested(depth: int) -> bytes:
    return b"\x94\x14\x01\xa1v" + b"\x91" * depth + b"\xc0"


def test_nesting_has_an_end() -> None:
    assert len(decode_request(nested(100)).arguments) == 101
    for depth in (50_000, 500_000):  # Python 3.13 goes to 10,000
        with pytest.raises(RecursionError):
            decode_request(nested(depth))
