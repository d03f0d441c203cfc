"""The bytes that are written by hand are what pika reads, and the other way round."""

import pytest
from pika import frame, spec

from penstock.engines.rabbitmq import wire


def test_publish_method() -> None:
    data = wire.publish_method(7, "ex", "key")
    size, found = frame.decode_frame(data)
    assert (size, found.channel_number) == (len(data), 7)
    method = found.method
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == ("ex", "key", True, False)


@pytest.mark.parametrize("size", [0, 1, 92, 93, 500])
def test_content_frames(size: int) -> None:
    body = bytes(range(256)) * 2
    data = wire.content_frames(3, wire.properties("id", "task", "json", {"n": 1}), body[:size], 100)
    used, header = frame.decode_frame(data)
    assert (header.body_size, header.properties.message_id, header.properties.type) == (size, "id", "task")
    assert (header.properties.headers, header.properties.delivery_mode) == ({"n": 1}, 2)
    found = b""
    while used < len(data):
        more, part = frame.decode_frame(data[used:])
        assert more <= 100
        found += part.fragment
        used += more
    assert found == body[:size]


def test_acks() -> None:
    _, ack = frame.decode_frame(wire.ack_frame(2, 9, True))
    assert (ack.method.delivery_tag, ack.method.multiple) == (9, True)
    _, nack = frame.decode_frame(wire.nack_frame(2, 9, False))
    assert (nack.method.delivery_tag, nack.method.multiple, nack.method.requeue) == (9, False, True)


def test_what_pika_writes_is_read() -> None:
    deliver = frame.Method(1, spec.Basic.Deliver("tag", 5, True, "ex", "key")).marshal()
    assert wire.method_id(deliver, 7) == wire.DELIVER
    found = wire.read_deliver(deliver, 7)
    assert (found.consumer, found.tag, found.redelivered, found.routing_key) == ("tag", 5, True, "key")
    got = wire.read_get_ok(frame.Method(1, spec.Basic.GetOk(6, False, "ex", "key", 0)).marshal(), 7)
    assert (got.tag, got.redelivered, got.routing_key) == (6, False, "key")
    returned = wire.read_return(frame.Method(1, spec.Basic.Return(312, "NO_ROUTE", "ex", "key")).marshal(), 7)
    assert (returned.note, returned.routing_key) == ("NO_ROUTE", "key")
    ack = frame.Method(1, spec.Basic.Ack(8, True)).marshal()
    assert wire.read_confirm(ack, 7) == (8, True)


@pytest.mark.parametrize("headers", [None, {"x-delivery-count": 2}])
def test_ids_are_read_with_and_without_headers(headers: dict[str, int] | None) -> None:
    assert wire.read_id(wire.properties("the-id", "task", "json", headers)) == ("the-id", headers or {})
    strange = b"".join(spec.BasicProperties(message_id="other", priority=3).encode())
    assert wire.read_id(strange) == ("other", {})


def test_an_id_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="bytes"):
        wire.properties("x" * 256, "task", "json")
