"""What several routes do."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from penstock.errors import ConfigError, PenstockError
from penstock.gateway.call_options import Rules
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import Caller
from penstock.gateway.showing import NO_TASK
from penstock.gateway.steps import ReadBody, Step, Waiting
from penstock.result import AsyncResult

TASKS = "/v1/tasks/"


def read_json(context: Context, asked: Asked) -> Generator[Step | ReadBody, Any, bytes]:
    """The body. Raises `Refused`, for a kind of content that a web page could send to whomever it likes, too."""
    kind = asked.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "not-json", "send Content-Type: application/json")
    if asked.request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "encoded", "send the body as it is, without a Content-Encoding")
    body: bytes = yield ReadBody(context.settings.max_body)
    return body


def rules(context: Context, asked: Asked) -> Rules:
    """What holds for the options of this request's calls."""
    app = context.app
    repeated = "idempotency-key" in asked.request.headers
    return Rules(context.settings, asked.caller.scopes, app.clock.time(), app.conf.address, repeated)


def links(asked: Asked) -> str:
    """The path below which tasks are."""
    return asked.request.root + TASKS


def need(caller: Caller, scope: str) -> None:
    """Raise `Refused` (403) without the scope."""
    if not caller.scopes.may(scope):
        raise Refused(403, "forbidden", f"this token lacks the scope {scope}")


def result_of(context: Context, task_id: str) -> AsyncResult[Any]:
    """Raises `Refused` (404) for what cannot be an id."""
    try:
        return context.app.AsyncResult(task_id)
    except ConfigError as error:
        raise Refused(404, "unknown-id", NO_TASK) from error


def reported(result: AsyncResult[Any]) -> Step:
    """All that is known of it now."""
    return Step(result.report, result.areport)


def until_end(result: AsyncResult[Any], seconds: float) -> Waiting:
    """Wait for its end; answered with whether it is there, `None` when the wait was cut short. Errors are for the look
    that follows."""

    def block() -> bool:
        try:
            result.get(seconds, propagate=False)
        except PenstockError:
            return False
        return True

    async def awaited() -> bool:
        try:
            await result.aget(seconds, propagate=False)
        except PenstockError:
            return False
        return True

    return Waiting(block, awaited)
