"""OpenAPI 3.1 of what a caller may call, from the tasks' signatures."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

import penstock
from penstock.codec.values import is_pydantic
from penstock.gateway.calls import Exposed
from penstock.gateway.settings import GatewaySettings
from penstock.message import MAX_NAME

REF = "#/components/schemas/{name}"
_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (_Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)
Document = dict[str, Any]


TOKENS: Mapping[str, Mapping[str, str]] = MappingProxyType({"token": {"type": "http", "scheme": "bearer"}})
"""How callers sign in with tokens."""
USERS: Mapping[str, Mapping[str, str]] = MappingProxyType({**TOKENS, "user": {"type": "http", "scheme": "basic"}})
"""How users of the broker do."""


def described(
    title: str,
    tasks: Mapping[str, Exposed],
    settings: GatewaySettings,
    root: str,
    schemes: Mapping[str, Mapping[str, str]],
) -> Document:
    """The document. `root` is where the gateway is mounted."""
    types = Types(_annotations(tasks.values()))
    paths: Document = {f"/v1/tasks/{name}": {"post": _call(name, one, types, settings)} for name, one in tasks.items()}
    paths |= _fixed(tasks, settings)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": penstock.__version__},
        "servers": [{"url": root or "/"}],
        "security": [{name: []} for name in schemes],
        "paths": paths,
        "components": {
            "schemas": {**types.components, "Task": TASK, "Problem": PROBLEM, "CallOptions": _options(settings)},
            "securitySchemes": dict(schemes),
        },
    }


class Types:
    """JSON Schema of annotations, as far as they have one."""

    def __init__(self, annotations: Iterable[Any]) -> None:
        self.components: Document = {}
        self._schemas: dict[int, Document] = {}
        for annotation in annotations:
            # One by one: what cannot be described must not take the others with it.
            try:
                [schema], components = msgspec.json.schema_components(
                    [annotation], schema_hook=_foreign, ref_template=REF
                )
            except Exception:
                schema, components = {}, {}  # anything goes
            self._schemas[id(annotation)] = dict(schema)
            self.components |= components

    def of(self, annotation: Any) -> Document:
        return self._schemas.get(id(annotation), {})


def _foreign(kind: type) -> Document:
    if is_pydantic(kind):
        schema: Document = kind.model_json_schema()  # type: ignore[attr-defined]  # it is Pydantic's
        return {"type": "object"} if "$defs" in schema else schema
    raise NotImplementedError


def _annotations(tasks: Iterable[Exposed]) -> Iterable[Any]:
    for one in tasks:
        signature = one.arguments.signature
        yield from (parameter.annotation for parameter in signature.parameters.values())
        yield signature.return_annotation


def _call(name: str, one: Exposed, types: Types, settings: GatewaySettings) -> Document:
    signature = one.arguments.signature
    summary = (inspect.getdoc(one.task.function) or name).partition("\n")[0]
    return {
        "operationId": f"call-{name}",
        "summary": summary,
        "tags": ["call"],
        "parameters": [*_waits(settings), _query("async", {"type": "boolean"}), KEY],
        "requestBody": {"required": True, "content": _content(_body(signature, types))},
        "responses": {
            "200": _response("it has ended", _task_with(types.of(signature.return_annotation))),
            "202": {**_response("accepted", ref("Task")), "headers": {"Location": {"schema": {"type": "string"}}}},
            **_problems(400, 401, 403, 404, 408, 409, 413, 414, 415, 422, 429, 501, 503, 504),
        },
    }


def _body(signature: inspect.Signature, types: Types) -> Document:
    parameters = list(signature.parameters.values())
    positional = [types.of(one.annotation) for one in parameters if one.kind in _POSITIONAL]
    rest = next((types.of(one.annotation) for one in parameters if one.kind is _Parameter.VAR_POSITIONAL), False)
    named = {one.name: types.of(one.annotation) for one in parameters if one.kind in _NAMED}
    others = next((types.of(one.annotation) for one in parameters if one.kind is _Parameter.VAR_KEYWORD), False)
    args: Document = {"type": "array", "items": rest}
    if positional:
        args["prefixItems"] = positional
    kwargs: Document = {"type": "object", "properties": named, "additionalProperties": others}
    only = [one.name for one in parameters if one.kind is _Parameter.KEYWORD_ONLY and one.default is one.empty]
    if only:
        kwargs["required"] = only
    return {
        "type": "object",
        "properties": {"args": args, "kwargs": kwargs, "options": ref("CallOptions")},
        "additionalProperties": False,
        **({"required": ["kwargs"]} if only else {}),
    }


def _options(settings: GatewaySettings) -> Document:
    moment = {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "properties": {
            "countdown": {"type": ["number", "null"], "minimum": 0, "maximum": settings.max_delay},
            "eta": {"anyOf": [moment, {"type": ["number", "null"], "minimum": 0}]},
            "expires": {
                "anyOf": [moment, {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": settings.max_delay}]
            },
            "priority": {"type": ["integer", "null"], "minimum": 0, "maximum": settings.max_priority},
            "queue": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_NAME},
            "task_id": {"type": ["string", "null"], "pattern": "^[0-9A-Za-z_-]{20,100}$"},
        },
        "additionalProperties": False,
    }


def ref(name: str) -> Document:
    return {"$ref": REF.format(name=name)}


def _task_with(result: Document) -> Document:
    return {"allOf": [ref("Task"), {"type": "object", "properties": {"result": result}}]}


def _content(schema: Document, kind: str = "application/json") -> Document:
    return {kind: {"schema": schema}}


def _response(description: str, schema: Document, kind: str = "application/json") -> Document:
    return {"description": description, "content": _content(schema, kind)}


def _problems(*statuses: int) -> Document:
    return {str(status): _response("a problem", ref("Problem"), "application/problem+json") for status in statuses}


def _query(name: str, schema: Document) -> Document:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _waits(settings: GatewaySettings) -> list[Document]:
    return [_query("wait", {"type": "number", "minimum": 0, "maximum": settings.max_wait})]


def _path(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _fixed(names: Iterable[str], settings: GatewaySettings) -> Document:
    """What is the same for all tasks."""
    task_id, usual = [_path("id")], (400, 401, 403, 404, 414, 422, 429, 503)
    look = {
        "operationId": "look",
        "parameters": [*task_id, *_waits(settings)],
        "responses": {
            "200": _response("the task as it is", ref("Task")),
            "304": {"description": "nothing has changed"},
            **_problems(*usual, 406, 502),
        },
    }
    revoke = {
        "operationId": "revoke",
        "parameters": [*task_id, _query("terminate", {"type": "boolean"})],
        "responses": {
            "200": _response("it does not run", ANY),
            "202": _response("its worker is told", ANY),
            **_problems(*usual, 501),
        },
    }
    follow = {
        "operationId": "follow",
        "parameters": [*task_id, _query("offset", {"type": "integer", "minimum": 0})],
        "responses": {
            "200": _response("its events", EVENT, "text/event-stream"),
            **_problems(*usual),
        },
    }
    one = {
        "type": "object",
        "properties": {
            "task": {"enum": list(names)},
            "args": {"type": "array"},
            "kwargs": {"type": "object"},
            "options": ref("CallOptions"),
        },
        "required": ["task"],
        "additionalProperties": False,
    }
    calls = {"type": "array", "items": one, "minItems": 1, "maxItems": settings.max_calls}
    many = {
        "operationId": "call-many",
        "parameters": [KEY],
        "requestBody": {
            "required": True,
            "content": _content(
                {"type": "object", "properties": {"calls": calls}, "required": ["calls"], "additionalProperties": False}
            ),
        },
        "responses": {"202": _response("accepted", ANY), **_problems(408, 409, 413, 415, 501, 504, *usual)},
    }
    backlog = {
        "operationId": "backlog",
        "parameters": [_path("queue")],
        "responses": {"200": _response("what is to be done", ANY), **_problems(*usual)},
    }
    info = {
        "operationId": "info",
        "responses": {"200": _response("this gateway", ANY), **_problems(400, 401, 414, 422, 429, 503)},
    }
    live = {"operationId": "live", "security": [], "responses": {"200": _response("it answers", ANY)}}
    ready = {
        "operationId": "ready",
        "security": [],
        "responses": {"200": _response("it answers calls", ANY), **_problems(503)},
    }
    return {
        "/health/live": {"get": live},
        "/health/ready": {"get": ready},
        "/v1/tasks/{id}": {"get": look, "delete": revoke},
        "/v1/tasks/{id}/events": {"get": follow},
        "/v1/batches": {"post": many},
        "/v1/queues/{queue}/backlog": {"get": backlog},
        "/v1/info": {"get": info},
    }


ANY: Document = {"type": "object"}
EVENT: Document = {"type": "object", "properties": {"event": {"enum": ["state", "part", "end", "error"]}}}
KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
TASK: Document = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["UNKNOWN", "PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]},
        "task": {"type": "string"},
        "queue": {"type": "string"},
        "retries": {"type": "integer"},
        "progress": {"type": ["object", "null"]},
        "done": {"type": "number"},
        "runtime": {"type": "number"},
        "result": {},
        "error": {"type": "object"},
        "links": {"type": "object"},
    },
    "required": ["id", "state"],
}
PROBLEM: Document = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array"},
    },
    "required": ["type", "title", "status", "detail"],
}
