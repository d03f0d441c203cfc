"""Calls over HTTP: what is accepted, what is refused, and which field is to blame. Both faces answer alike."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from penstock import Penstock, apart
from penstock.pressure.overview import overview
from penstock.worker import Worker
from tests.unit.gateway.faces import Face


def test_a_call_is_accepted_and_says_where_it_is(face: Face, penstock_app: Penstock) -> None:
    reply = face.post("/v1/tasks/tasks.add", {"args": [2, 3]})
    assert reply.status == 202
    task_id = reply.json["id"]
    assert reply.headers["location"] == f"/v1/tasks/{task_id}" == reply.json["links"]["self"]
    assert penstock_app.AsyncResult(task_id).state == "PENDING"


def test_who_waits_is_given_the_result(face: Face, penstock_worker: Worker) -> None:
    reply = face.post("/v1/tasks/tasks.add?wait=20", {"args": [2], "kwargs": {"y": 5}})
    assert (reply.status, reply.json["state"], reply.json["result"]) == (200, "SUCCESS", 7)


def test_a_call_that_takes_too_long_goes_on_by_itself(make_face: Callable[..., Face]) -> None:
    face, began = make_face(max_wait=0.05), time.monotonic()
    assert face.post("/v1/tasks/tasks.add?wait=1000", {"args": [1]}).status == 202
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("wait", ["0.10164164687027309", "1e-3", "0.", "1E0", "9e999"])
def test_any_number_of_seconds_is_one(make_face: Callable[..., Face], wait: str) -> None:
    assert make_face(max_wait=0.01).post(f"/v1/tasks/tasks.add?wait={wait}", {"args": [1]}).status == 202


def test_a_gateway_may_wait_unasked_and_async_wins(make_face: Callable[..., Face], penstock_worker: Worker) -> None:
    face = make_face(wait=20.0)
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}).status == 200
    assert face.post("/v1/tasks/tasks.add?async=true", {"args": [1]}).status == 202


def test_who_may_not_read_is_not_given_the_result(face: Face, penstock_worker: Worker) -> None:
    face.may("call:*")
    assert face.post("/v1/tasks/tasks.add?wait=20", {"args": [1]}).status == 202


def test_results_come_as_json_whatever_they_are_kept_as(face: Face, penstock_worker: Worker) -> None:
    reply = face.post("/v1/tasks/tasks.packed?wait=20", {"kwargs": {"value": {"a": [1, None]}, "data": "aGk="}})
    assert reply.json["result"] == {"a": [1, None]}


@pytest.mark.parametrize(
    ("task", "body", "fields"),
    [
        ("tasks.add", {}, ["kwargs.x"]),
        ("tasks.add", {"args": ["2"]}, ["args[0]"]),
        ("tasks.add", {"args": [1, None], "kwargs": {"z": 1}}, ["args[1]", "kwargs.z"]),
        ("tasks.add", {"args": [1, 2, 3]}, ["args[2]"]),
        ("tasks.add", {"args": [1], "kwargs": {"x": 2}}, ["kwargs.x"]),
        ("tasks.add", {"args": {}}, ["args"]),
        ("tasks.add", {"kwargs": []}, ["kwargs"]),
        ("tasks.add", {"arguments": []}, ["body"]),
        ("tasks.add", [1, 2], ["body"]),
        ("tasks.move", {}, ["args[0]"]),
        ("tasks.move", {"args": [{"x": 1, "y": "far"}]}, ["args[0].y"]),
        ("tasks.move", {"args": [{"x": 1}, {"x": 2}, {"y": 3}]}, ["args[2]"]),
        ("tasks.move", {"args": [{"x": 1}], "kwargs": {"when": "soon", "left": "a"}}, ["kwargs.when", "kwargs.left"]),
    ],
)
def test_what_does_not_fit_is_named(face: Face, task: str, body: object, fields: list[str]) -> None:
    reply = face.post(f"/v1/tasks/{task}", body)
    assert (reply.status, reply.fields) == (422, fields), reply.body
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("?wait=soon", "query.wait"),
        ("?async=maybe", "query.async"),
        ("?wait=-1", "query.wait"),
        ("?later=1", "query.later"),
    ],
)
def test_arguments_of_the_query_are_checked(face: Face, path: str, field: str) -> None:
    assert face.post(f"/v1/tasks/tasks.add{path}", {"args": [1]}).fields == [field]


@pytest.mark.parametrize(
    "body", [b"{", b'{"args": [' + b"[" * 100_000, b"\xff\xfe", b'{"args": [1e999]}', b'"\xed\xa0\x80"']
)
def test_what_is_no_json_is_refused(face: Face, body: bytes) -> None:
    assert face.ask("POST", "/v1/tasks/tasks.packed", body).status in (400, 422)


def test_json_that_is_nested_too_deeply_is_refused(face: Face) -> None:
    deep = b'{"args": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
    assert face.ask("POST", "/v1/tasks/tasks.packed", deep).status in (400, 422)


def test_only_json_is_taken(face: Face) -> None:
    # What a web page may send to any address without being asked.
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert face.ask("POST", "/v1/tasks/tasks.add", b"{}", {"content-type": kind}).status == 415
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}, content_encoding="gzip").status == 415
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}, content_type="application/json; charset=utf-8").status == 202


def test_a_body_is_bounded(make_face: Callable[..., Face]) -> None:
    reply = make_face(max_body=50).post("/v1/tasks/tasks.packed", {"args": ["x" * 50]})
    assert (reply.status, reply.json["type"]) == (413, "urn:penstock:too-large")


def test_an_unknown_task_is_not_found(face: Face) -> None:
    reply = face.post("/v1/tasks/tasks.ad")
    assert reply.status == 404
    assert "did you mean 'tasks.add'?" in reply.json["detail"]


def test_without_a_scope_nothing_is_told(face: Face) -> None:
    face.may("call:tasks.a*", "read")
    known, unknown = face.post("/v1/tasks/internal.drop"), face.post("/v1/tasks/internal.none")
    assert known.status == unknown.status == 403
    assert known.json["type"] == unknown.json["type"]
    assert "internal.drop" not in face.get("/v1/info").body.decode() + face.get("/v1/openapi.json").body.decode()
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}).status == 202


def test_what_is_not_exposed_is_not_there(make_face: Callable[..., Face]) -> None:
    face = make_face(expose=("tasks.*",))
    assert face.post("/v1/tasks/internal.drop").status == 404
    assert face.post("/v1/tasks/penstock.starmap").status == 404


def test_a_full_queue_asks_to_come_again(face: Face, penstock_app: Penstock) -> None:
    for _ in range(6):
        assert face.post("/v1/tasks/tasks.add", {"args": [1]}).status == 202
    reply = face.post("/v1/tasks/tasks.add", {"args": [1]})
    assert (reply.status, reply.json["type"]) == (503, "urn:penstock:queue-full")
    assert int(reply.headers["retry-after"]) >= 1
    assert face.post("/v1/batches", {"calls": [{"task": "tasks.add", "args": [1]}] * 2}).status == 503
    penstock_app.client.refusals.close()
    engine = penstock_app.engine
    [(_, refused)] = engine.run(overview(engine, apart.shared(penstock_app), penstock_app.clock, "")).refusals
    assert (refused.who.rpartition(" by ")[0], refused.task, refused.count) == (face.name, "tasks.add", 3)


def test_a_unique_task_that_is_there_is_a_conflict(face: Face) -> None:
    first, second = face.post("/v1/tasks/tasks.once"), face.post("/v1/tasks/tasks.once")
    assert (second.status, second.json["id"]) == (409, first.json["id"])


def test_a_repeat_is_the_same_call(face: Face) -> None:
    def call(body: object, key: str = "k") -> object:
        return face.post("/v1/tasks/tasks.add", body, idempotency_key=key)

    first, again = call({"args": [1, 2]}), call({"kwargs": {"y": 2, "x": 1}})
    assert (first.status, again.json["id"]) == (202, first.json["id"])
    assert call({"args": [1, 2]}, "other").json["id"] != first.json["id"]
    reused = call({"args": [1, 3]})
    assert (reused.status, reused.json["type"]) == (422, "urn:penstock:key-reused")
    face.name = "bob"
    assert call({"args": [1, 2]}).json["id"] != first.json["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\x01"])
def test_a_bad_key_is_refused(face: Face, key: str) -> None:
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}, idempotency_key=key).status == 400


def test_a_batch_is_published_together(face: Face, penstock_app: Penstock) -> None:
    calls = [{"task": "tasks.add", "args": [1]}, {"task": "tasks.once"}, {"task": "tasks.once"}]
    reply = face.post("/v1/batches", {"calls": calls}, idempotency_key="b")
    assert reply.status == 202
    one, two, three = reply.json["tasks"]
    assert one["id"] != two["id"]
    assert three["error"]["type"] == "urn:penstock:already-queued"
    assert penstock_app.engine.run(penstock_app.broker.depth("default")) == 2
    assert face.post("/v1/batches", {"calls": calls}, idempotency_key="b").json["tasks"][0]["id"] == one["id"]


def test_a_batch_names_the_call_that_is_wrong(face: Face) -> None:
    reply = face.post(
        "/v1/batches", {"calls": [{"task": "tasks.add", "args": [1]}, {"task": "tasks.add", "args": [""]}]}
    )
    assert reply.fields == ["calls[1].args[0]"]
    assert face.post("/v1/batches", {"calls": [{"args": []}]}).fields == ["calls[0]"]
    assert face.post("/v1/batches", {"calls": []}).fields == ["calls"]
    assert face.post("/v1/batches", {"calls": [{"task": "tasks.none"}]}).status == 404


def test_a_batch_that_does_not_fit_is_refused_whole(face: Face, penstock_app: Penstock) -> None:
    assert face.post("/v1/batches", {"calls": [{"task": "tasks.add", "args": [1]}] * 7}).status == 503
    assert penstock_app.engine.run(penstock_app.broker.depth("default")) == 0
