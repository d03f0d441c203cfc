"""The gateway describes itself, and keeps to it whatever it is asked."""

from __future__ import annotations

import ast
import asyncio
import warnings
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from penstock import Penstock, Queue
from penstock.gateway import GatewaySettings
from tests import doc_pages
from tests.unit.gateway.conftest import with_tasks
from tests.unit.gateway.faces import Face, Reply

ALLOWED = frozenset({501, 503})
"""Of the server's errors, those that say what this engine or this moment lacks."""


@pytest.fixture(scope="module")
def face() -> Any:
    app = with_tasks(Penstock("tests", broker="memory://", task_queues=[Queue("default")]))
    yield Face("asgi", app, max_wait=0.01, stream=0.01, poll=0.01, client_requests=10_000)
    app.close()


def test_tasks_are_described_by_their_types(face: Face) -> None:
    document = face.get("/v1/openapi.json").json
    add = document["paths"]["/v1/tasks/tasks.add"]["post"]
    assert add["summary"] == "Add two numbers."
    body = add["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert body["args"] == {"type": "array", "items": False, "prefixItems": [{"type": "integer"}, {"type": "integer"}]}
    assert body["kwargs"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer"}}
    assert body["kwargs"]["additionalProperties"] is False
    move = document["paths"]["/v1/tasks/tasks.move"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    point = {"$ref": "#/components/schemas/Point"}
    assert move["properties"]["args"] == {"type": "array", "items": point, "prefixItems": [point]}
    assert "point" not in move["properties"]["kwargs"]["properties"]
    assert move["properties"]["kwargs"]["additionalProperties"] == {"type": "number"}
    assert document["components"]["schemas"]["Point"]["required"] == ["x"]


def test_the_document_has_a_tag(face: Face) -> None:
    tag = face.get("/v1/openapi.json").headers["etag"]
    assert face.get("/v1/openapi.json", if_none_match=tag).status == 304


def test_the_guide_has_every_setting_and_path(face: Face) -> None:
    page = doc_pages.DOCS / "guides/gateway.md"
    documented = doc_pages.rows(page, "Settings")
    assert list(documented) == list(GatewaySettings.__struct_fields__)
    for setting, default in documented.items():
        assert ast.literal_eval(default) == getattr(GatewaySettings(), setting), setting
    text = page.read_text("utf-8")
    tasks = {f"/v1/tasks/{name}" for name in face.get("/v1/info").json["tasks"]}
    assert not [path for path in face.get("/v1/openapi.json").json["paths"].keys() - tasks if path not in text]


def operations(face: Face) -> list[Any]:
    import schemathesis

    document = face.get("/v1/openapi.json").json
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


def asked(face: Face, case: Any) -> Reply:
    import msgspec

    path = urlsplit(case.formatted_path).path
    query = urlencode(case.query or {}, doseq=True, errors="replace")
    body = (
        b""
        if not isinstance(case.body, dict | list | str | int | float | bool | None)
        else msgspec.json.encode(case.body)
    )
    headers = {name: value for name, value in (case.headers or {}).items() if value.isascii() and value.isprintable()}
    return face.ask(case.method, f"{path}?{query}" if query else path, body, headers)


@pytest.mark.parametrize("examples", [2, pytest.param(100, marks=[pytest.mark.extended, pytest.mark.timeout(900)])])
def test_whatever_is_asked_is_answered_as_described(face: Face, examples: int) -> None:
    """schemathesis makes up requests from the gateway's own OpenAPI, right ones and wrong ones."""
    from schemathesis.generation import GenerationMode

    warnings.simplefilter("ignore")
    for operation in operations(face):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            check_answers(face, operation, mode, examples)


def check_answers(face: Face, operation: Any, mode: Any, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        reply = asked(face, case)
        assert reply.status < 500 or reply.status in ALLOWED, (case.method, case.formatted_path, reply)
        described = operation.responses.find_by_status_code(reply.status)
        assert described is not None, (case.method, case.formatted_path, reply)

    try:
        ask()
    except Exception as error:
        if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
            raise


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PATCH"]),
    path=st.sampled_from(["/v1/tasks/tasks.add", "/v1/tasks/tasks.packed", "/v1/tasks/tasks.move", "/v1/batches"])
    | st.text(max_size=20).map(lambda text: f"/v1/tasks/{text}"),
    query=st.text(max_size=12) | st.sampled_from(["wait=0.001", "wait=1e3", "async", "wait=%ff", "terminate=%00"]),
    body=st.binary(max_size=40) | JSON_LIKE.map(lambda value: {"args": value}) | JSON_LIKE,
    key=st.none() | st.text(alphabet=st.characters(max_codepoint=255), max_size=10),
    tag=st.none() | st.text(alphabet=st.characters(max_codepoint=255), max_size=10),
)
def test_nothing_makes_it_fail(
    face: Face, method: str, path: str, query: str, body: object, key: str | None, tag: str | None
) -> None:
    import json

    headers = {name: value for name, value in (("idempotency-key", key), ("if-none-match", tag)) if value is not None}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = asyncio.run(_ask(face, method, path.replace("?", ""), query, raw, headers))
    assert reply.status < 500, reply


async def _ask(face: Face, method: str, path: str, query: str, body: bytes, headers: dict[str, str]) -> Reply:
    from tests.unit.gateway.faces import http_scope

    scope = http_scope(method, "/")
    scope["path"] = path
    scope["query_string"] = query.encode("utf-8", "replace")
    given = {"content-type": "application/json"} | headers
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    coming = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return coming.pop() if coming else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    await face.asgi(scope, receive, send)
    return Reply(sent[0]["status"], {}, b"".join(part["body"] for part in sent[1:]))
