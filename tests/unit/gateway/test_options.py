"""Options of calls over HTTP: what they do, that each is bounded, and what they mean beside an Idempotency-Key."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock import Penstock
from tests.unit.gateway.faces import Face, Reply

LATER = datetime.now(UTC) + timedelta(hours=1)


def call(face: Face, options: object, **headers: str) -> Reply:
    return face.post("/v1/tasks/tasks.add", {"args": [1], "options": options}, **headers)


def test_options_are_those_of_the_message(face: Face, penstock_app: Penstock) -> None:
    chosen = str(uuid.uuid4())
    reply = call(face, {"countdown": 60, "expires": 120.5, "priority": 9, "queue": "other", "task_id": chosen})
    assert (reply.status, reply.json["id"]) == (202, chosen)
    (waiting,) = penstock_app.engine.run(penstock_app.engine.inspect.peek("other"))
    message, now = waiting.message, time.time()
    assert message is not None and message.priority == 9
    assert message.eta is not None and abs(message.eta - now - 60) < 20
    assert message.expires is not None and abs(message.expires - now - 120) < 20


@pytest.mark.parametrize("eta", [LATER.isoformat(), LATER.timestamp(), 0], ids=["text", "unix", "past"])
def test_a_moment_is_text_or_unix_time(face: Face, penstock_app: Penstock, eta: object) -> None:
    assert call(face, {"eta": eta}).status == 202
    (info,) = penstock_app.engine.run(penstock_app.engine.inspect.queues())
    assert (info.delayed == 1) is (eta != 0)


@pytest.mark.parametrize("options", [{}, {"countdown": None}, {"countdown": 0}, {"expires": LATER.isoformat()}])
def test_nothing_much_may_be_said(face: Face, options: object) -> None:
    assert call(face, options).status == 202


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"countdown": -1}, ["options.countdown"]),
        ({"countdown": 1e300}, ["options.countdown"]),
        ({"countdown": "1"}, ["options.countdown"]),
        ({"countdown": 101}, ["options.countdown"]),
        ({"eta": -5}, ["options.eta"]),
        ({"eta": LATER.replace(tzinfo=None).isoformat()}, ["options.eta"]),
        ({"eta": "tomorrow"}, ["options.eta"]),
        ({"eta": "9999-12-31T23:59:59Z"}, ["options.eta"]),
        ({"eta": 1e18}, ["options.eta"]),
        ({"eta": 1, "countdown": 1}, ["options.eta"]),
        ({"expires": 0}, ["options.expires"]),
        ({"expires": "2001-01-01T00:00:00Z"}, ["options.expires"]),
        ({"countdown": 50, "expires": 49}, ["options.expires"]),
        ({"priority": 7}, ["options.priority"]),
        ({"priority": -1}, ["options.priority"]),
        ({"priority": 5.5}, ["options.priority"]),
        ({"priority": 10**30}, ["options.priority"]),
        ({"queue": "a\nb"}, ["options.queue"]),
        ({"queue": ""}, ["options.queue"]),
        ({"task_id": "order-1"}, ["options.task_id"]),
        ({"task_id": "0" * 32 + ".1"}, ["options.task_id"]),
        ({"task_id": "x" * 101}, ["options.task_id"]),
        ({"countdown": -1, "priority": 99}, ["options.countdown", "options.priority"]),
        ({"headers": {}}, ["options"]),
        ([], ["options"]),
    ],
)
def test_what_is_out_of_bounds_is_named(make_face: Callable[..., Face], options: object, fields: list[str]) -> None:
    reply = call(make_face(max_delay=100.0, max_priority=6), options)
    assert (reply.status, reply.fields) == (422, fields), reply.body


def test_a_queue_needs_a_scope(face: Face) -> None:
    face.may("call:*", "queue:slow*")
    assert call(face, {"queue": "slow-1"}).status == 202
    for queue in ("default", "fast", "slow" + "x" * 300):
        refused = call(face, {"queue": queue})
        assert (refused.status, refused.json["type"]) == (403, "urn:penstock:forbidden")


def test_a_queue_must_be_one_of_the_apps(face: Face, penstock_app: Penstock) -> None:
    with penstock_app.redirected(task_create_missing_queues=False, task_queues=["default"]):
        reply = call(face, {"queue": "defautl"})
    assert reply.fields == ["options.queue"]
    assert "did you mean 'default'?" in reply.json["detail"]


def test_batches_take_options_for_each_call(face: Face, penstock_app: Penstock) -> None:
    one: dict[str, Any] = {"task": "tasks.add", "args": [1]}
    reply = face.post("/v1/batches", {"calls": [one, {**one, "options": {"queue": "other", "countdown": 5}}]})
    assert reply.status == 202
    assert {info.name for info in penstock_app.engine.run(penstock_app.engine.inspect.queues())} == {"default", "other"}
    wrong = face.post("/v1/batches", {"calls": [one, {**one, "options": {"countdown": -5}}]})
    assert wrong.fields == ["calls[1].options.countdown"]
    malformed = face.post("/v1/batches", {"calls": [one, {**one, "options": {"eta": "x"}}]})
    assert malformed.fields == ["calls[1].options.eta"]


def test_a_chosen_id_that_is_there_is_the_same_task(face: Face, penstock_app: Penstock) -> None:
    chosen = uuid.uuid4().hex
    assert call(face, {"task_id": chosen}).json["id"] == call(face, {"task_id": chosen}).json["id"] == chosen
    assert penstock_app.engine.run(penstock_app.broker.depth("default")) == 1


def test_options_are_part_of_what_is_repeated(face: Face) -> None:
    first = call(face, {"countdown": 10}, idempotency_key="k")
    assert call(face, {"countdown": 10}, idempotency_key="k").json["id"] == first.json["id"]
    assert call(face, {"countdown": 11}, idempotency_key="k").json["type"] == "urn:penstock:key-reused"
    both = call(face, {"task_id": uuid.uuid4().hex}, idempotency_key="other")
    assert both.fields == ["options.task_id"]


def test_the_key_of_another_batch_is_refused_and_nothing_of_it_runs(face: Face, penstock_app: Penstock) -> None:
    one, two = {"task": "tasks.add", "args": [1]}, {"task": "tasks.add", "args": [2]}

    def publish(*calls: object) -> Reply:
        return face.post("/v1/batches", {"calls": calls}, idempotency_key="b")

    first = publish(one)
    longer = publish(one, two)
    assert (first.status, longer.status, longer.json["type"]) == (202, 422, "urn:penstock:key-reused")
    assert penstock_app.engine.run(penstock_app.broker.depth("default")) == 1
    assert publish(one).json["tasks"] == first.json["tasks"]


def test_a_unique_task_under_another_key_is_no_repeat(face: Face) -> None:
    first = face.post("/v1/tasks/tasks.alone", {"args": [1]}, idempotency_key="one")
    second = face.post("/v1/tasks/tasks.alone", {"args": [2]}, idempotency_key="two")
    assert (first.status, second.status) == (202, 202)
    assert second.json["id"] == first.json["id"]
