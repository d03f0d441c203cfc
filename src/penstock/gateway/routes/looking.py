"""`GET` and `DELETE` of `/v1/tasks/{id}`: look at a task, wait for it, revoke it."""

from __future__ import annotations

import time

from penstock.coordinator import Revoked
from penstock.gateway.answering import Answer, answer_json, tagged
from penstock.gateway.asking import flag, seconds
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.routes.common import links, need, reported, result_of, until_end
from penstock.gateway.scopes import INSPECT, READ, REVOKE
from penstock.gateway.showing import known, shown
from penstock.gateway.steps import Plan, Step
from penstock.outcome import Report


def look(context: Context, asked: Asked) -> Plan[Answer]:
    """The task as it is; with `?wait=` when it has ended, or, for who has an ETag, when it has changed."""
    need(asked.caller, READ)
    settings, app = context.settings, context.app
    wait = seconds(asked.request.arguments(("wait",)), "wait", 0.0, settings.max_wait)
    result, tag = result_of(context, asked.name), asked.request.headers.get("if-none-match")
    traceback, here = asked.caller.scopes.may(INSPECT), links(asked)
    deadline = time.monotonic() + wait
    while True:
        report: Report = yield reported(result)
        answer = tagged(answer_json(200, shown(app, known(app, report), here, traceback)), tag)
        left = deadline - time.monotonic()
        if report.state.terminal or left <= 0 or (tag is not None and answer.status != 304):
            return answer
        if (yield until_end(result, left if tag is None else min(left, settings.poll))) is None:
            return answer


def revoke(context: Context, asked: Asked) -> Plan[Answer]:
    """What was found of it: 202 where a worker is told to end it, else 200."""
    need(asked.caller, REVOKE)
    terminate = flag(asked.request.arguments(("terminate",)), "terminate")
    result = result_of(context, asked.name)
    report: Report = yield reported(result)
    # Revocations of what never was would be remembered, as many as somebody can think of.
    known(context.app, report)
    found: Revoked = yield Step(lambda: result.revoke(terminate), lambda: result.arevoke(terminate))
    return answer_json(202 if found is Revoked.RUNNING else 200, {"id": result.id, "revoked": str(found)})
