"""Looking at tasks, waiting for them, following and revoking them; queues, and what the gateway says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from penstock import Penstock
from penstock.outcome import Part, Parts
from penstock.worker import Worker
from tests.unit.gateway.faces import Face, Reply


def called(face: Face, task: str, *args: object) -> str:
    reply = face.post(f"/v1/tasks/{task}", {"args": args})
    assert reply.status == 202, reply.body
    task_id: str = reply.json["id"]
    return task_id


def test_a_task_is_shown_with_a_tag(face: Face) -> None:
    path = f"/v1/tasks/{called(face, 'tasks.add', 1)}"
    reply = face.get(path)
    assert (reply.status, reply.json["state"], reply.json["progress"]) == (200, "PENDING", None)
    tag = reply.headers["etag"]
    for asked in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = face.get(path, if_none_match=asked)
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
    assert face.get(path, if_none_match='"x"').status == 200
    head = face.ask("HEAD", path)
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", tag)


def test_who_waits_is_told_of_the_end(face: Face, penstock_worker: Worker) -> None:
    reply = face.get(f"/v1/tasks/{called(face, 'tasks.add', 2, 3)}?wait=20")
    assert (reply.json["state"], reply.json["result"]) == ("SUCCESS", 5)
    assert reply.json["task"] == "tasks.add"


def test_who_has_a_tag_waits_for_a_change(make_face: Callable[..., Face], penstock_app: Penstock) -> None:
    face = make_face(poll=0.01)
    path = f"/v1/tasks/{called(face, 'tasks.add', 2)}"
    tag, began = face.get(path).headers["etag"], time.monotonic()
    assert face.get(f"{path}?wait=0.2", if_none_match=tag).status == 304
    assert time.monotonic() - began >= 0.2
    assert face.get(f"{path}?wait=30", if_none_match='"older"').status == 200
    assert time.monotonic() - began < 20


def test_errors_are_told_and_tracebacks_only_to_who_may_inspect(face: Face, penstock_worker: Worker) -> None:
    path = f"/v1/tasks/{called(face, 'tasks.fail')}?wait=20"
    shown = face.get(path).json
    assert shown["state"] == "FAILURE"
    assert (shown["error"]["type"], shown["error"]["message"]) == ("LookupError", "nothing there")
    assert "raise LookupError" in shown["error"]["traceback"]
    face.may("read")
    assert "traceback" not in face.get(path).json["error"]


@pytest.mark.parametrize("task_id", ["nothing", "0" * 32, "x" * 300, "%00", "a b", "..", "ä", "0" * 32 + ".1"])
def test_unknown_ids_are_not_found(face: Face, task_id: str) -> None:
    for ask in (face.get, lambda path: face.ask("DELETE", path)):
        assert ask(f"/v1/tasks/{task_id}").status == 404
    assert face.get(f"/v1/tasks/{task_id}/events").status == 404


def test_what_waits_is_removed(face: Face) -> None:
    path = f"/v1/tasks/{called(face, 'tasks.add', 1)}"
    assert face.ask("DELETE", path).json["revoked"] == "removed"
    assert face.get(path).json["state"] == "REVOKED"
    assert face.ask("DELETE", path).json["revoked"] == "ended"
    assert face.ask("DELETE", f"{path}?terminate=perhaps").status == 422


def test_each_thing_needs_its_scope(face: Face) -> None:
    path = f"/v1/tasks/{called(face, 'tasks.add', 1)}"
    asks = {
        "read": lambda: face.get(path),
        "revoke": lambda: face.ask("DELETE", path),
        "inspect": lambda: face.get("/v1/queues/default/backlog"),
    }
    for scope, ask in asks.items():
        face.may(*({*asks} - {scope}))
        assert ask().status == 403, scope
        face.may(scope)
        assert ask().status == 200, scope
    face.may("revoke", "inspect")
    assert face.get(f"{path}/events").status == 403


def test_events_end_with_the_result(make_face: Callable[..., Face], penstock_worker: Worker) -> None:
    face = make_face(poll=0.01)
    reply = face.get(f"/v1/tasks/{called(face, 'tasks.steps', 3)}/events")
    assert reply.headers["content-type"] == "text/event-stream"
    *_, last = reply.body.decode().removesuffix("\n\n").split("\n\n")
    assert last.startswith("event: end\ndata: {")
    assert '"result":"done"' in last


def test_events_tell_of_what_changes(make_face: Callable[..., Face]) -> None:
    face = make_face(poll=0.01, stream=0.1)
    reply = face.get(f"/v1/tasks/{called(face, 'tasks.add', 3)}/events")
    assert reply.body.count(b"event: ") == 1
    assert b'event: state\ndata: {"id"' in reply.body


def parts(reply: Reply) -> list[str]:
    blocks = reply.body.decode().split("\n\n")
    return [block for block in blocks if "event: part" in block]


def test_parts_are_told_one_by_one_and_gone_on_with(make_face: Callable[..., Face], penstock_worker: Worker) -> None:
    face = make_face(poll=30.0)
    path = f"/v1/tasks/{called(face, 'tasks.words', 300)}/events"
    first = face.get(path)
    assert len(parts(first)) == 300
    assert parts(first)[7] == 'id: 7\nevent: part\ndata: {"index":7,"run":0,"value":"word 7"}'
    assert b"event: end" in first.body
    assert parts(face.get(path, last_event_id="297")) == parts(first)[298:]
    assert parts(face.get(f"{path}?offset=299")) == parts(first)[299:]
    for wrong in ("-1", "x", "9" * 99):
        assert face.get(path, last_event_id=wrong).status == 422


def test_a_stream_ends_though_there_are_always_more_parts(
    make_face: Callable[..., Face], penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may publish faster than its reader reads."""

    async def endless(key: object, offset: int, limit: int) -> Parts:
        found = [Part(index, 0, b"1", "json") for index in range(offset, offset + limit)]
        return Parts(0, offset + limit, found, ended=False)

    face = make_face(stream=0.05)
    path = called(face, "tasks.add", 1)
    monkeypatch.setattr(penstock_app.backend, "parts", endless)
    reply = face.get(f"/v1/tasks/{path}/events")
    assert len(parts(reply)) > 1
    assert b"event: end" not in reply.body


def test_a_backlog_is_what_is_to_be_done(face: Face) -> None:
    called(face, "tasks.add", 1)
    called(face, "tasks.add", 1)
    shown = face.get("/v1/queues/default/backlog").json
    assert (shown["backlog"], shown["ready"], shown["leased"], shown["max_length"]) == (2, 2, 0, 6)
    assert face.get("/v1/queues/nothing/backlog").status == 404
    assert face.get(f"/v1/queues/{'x' * 300}/backlog").status == 404


def test_the_gateway_says_what_its_caller_may_do(face: Face) -> None:
    face.may("call:tasks.a*", "call:internal.*", "read")
    info = face.get("/v1/info").json
    assert info["tasks"] == ["internal.drop", "tasks.add", "tasks.alone"]
    assert info["scopes"] == ["call:tasks.a*", "call:internal.*", "read"]
    assert info["engine"] == "memory"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v1/tasks",
        "/v1/tasks/",
        "/v1/tasks/a/b",
        "/v2/info",
        "/v1/info/",
        "/v1/queues//backlog",
        "/" * 50,
    ],
)
def test_other_places_are_not_there(face: Face, path: str) -> None:
    assert face.get(path).status == 404


def test_other_methods_are_refused(face: Face) -> None:
    reply = face.ask("PUT", "/v1/tasks/tasks.add")
    assert (reply.status, reply.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


def test_what_fails_unexpectedly_tells_nothing(
    face: Face, penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(penstock_app.client, "prepare", broken)
    reply = face.post("/v1/tasks/tasks.add", {"args": [1]})
    assert reply.status == 500
    assert b"secret" not in reply.body
