"""What only the WSGI face does: it keeps to the letter of WSGI, and reads no more than it is sent."""

from __future__ import annotations

import io
import json
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from penstock import Penstock
from tests.unit.gateway.conftest import with_tasks
from tests.unit.gateway.faces import Face

BODY = json.dumps({"args": [1]}).encode()


@pytest.fixture
def face(penstock_app: Penstock) -> Face:
    return Face("wsgi", with_tasks(penstock_app), stream=0.01, poll=0.01)


def asked(face: Face, method: str, path: str, **environ: Any) -> tuple[int, dict[str, str], bytes]:
    given: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        **environ,
    }
    if method == "POST":
        given["CONTENT_TYPE"] = "application/json"
    setup_testing_defaults(given)
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        started.append((int(status.split()[0]), dict(headers)))
        return lambda data: None

    parts = validator(face.wsgi)(given, start_response)  # type: ignore[arg-type]  # typeshed's environ is narrower
    try:
        body = b"".join(parts)
    finally:
        parts.close()  # type: ignore[attr-defined]  # the validator's has it
    return *started[0], body


def test_it_is_what_servers_expect(face: Face) -> None:
    call = {"CONTENT_LENGTH": str(len(BODY)), "wsgi.input": io.BytesIO(BODY), "SCRIPT_NAME": "/jobs"}
    status, headers, _ = asked(face, "POST", "/v1/tasks/tasks.add", **call)
    assert (status, headers["location"][:15]) == (202, "/jobs/v1/tasks/")
    task = headers["location"].removeprefix("/jobs")
    del call
    assert asked(face, "GET", f"{task}/events")[2].startswith(b"event: state\n")
    for method, path in (("HEAD", task), ("HEAD", f"{task}/events"), ("DELETE", task), ("GET", "/v1/none")):
        asked(face, method, path)
    tag = asked(face, "GET", task)[1]["etag"]
    assert asked(face, "GET", task, HTTP_IF_NONE_MATCH=tag)[0] == 304
    assert face.wsgi.gateway.open == 0  # type: ignore[attr-defined]  # it is a WsgiGateway


@pytest.mark.parametrize(
    ("length", "sent", "status"),
    [
        (str(len(BODY)), BODY + b"GET / HTTP/1.1", 202),
        ("9" * 20, BODY, 413),
        (str(len(BODY)).zfill(20), BODY, 413),  # not a part of it, which would be a call without arguments
        ("99", BODY, 400),
        ("", BODY, 422),  # whoever does not say how much it sends, has sent nothing
    ],
)
def test_bodies_are_as_long_as_they_say(face: Face, length: str, sent: bytes, status: int) -> None:
    environ = {"CONTENT_LENGTH": length} if length else {}
    assert asked(face, "POST", "/v1/tasks/tasks.add", **environ, **{"wsgi.input": io.BytesIO(sent)})[0] == status


def test_a_stream_that_is_closed_early_leaves_nothing(face: Face) -> None:
    status, headers, _ = asked(
        face, "POST", "/v1/tasks/tasks.add", CONTENT_LENGTH=str(len(BODY)), **{"wsgi.input": io.BytesIO(BODY)}
    )
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": f"{headers['location']}/events"}
    stream: Any = face.wsgi(environ, lambda status, headers: None)
    events = iter(stream)
    next(events)
    gateway = face.wsgi.gateway  # type: ignore[attr-defined]  # it is a WsgiGateway
    assert (status, gateway.open) == (202, 1)
    stream.close()
    assert gateway.open == 0
