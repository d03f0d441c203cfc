"""`POST /v1/tasks/{name}`: call a task."""

from __future__ import annotations

import logging

from penstock.errors import PenstockError
from penstock.gateway.answering import Answer, answer_json
from penstock.gateway.asking import flag, seconds
from penstock.gateway.calls import read_call
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.private_ids import make_private
from penstock.gateway.problems import Refused
from penstock.gateway.repeats import Request, mark
from penstock.gateway.routes.common import links, read_json, reported, rules, until_end
from penstock.gateway.scopes import INSPECT, READ
from penstock.gateway.showing import address, links_of, shown
from penstock.gateway.steps import Plan, Step
from penstock.outcome import Report
from penstock.refusals import on_behalf_of
from penstock.result import AsyncResult

log = logging.getLogger("penstock.gateway")


def call(context: Context, asked: Asked) -> Plan[Answer]:
    """202 and where to look, or the result where it is there in time."""
    app, settings, caller = context.app, context.settings, asked.caller
    given = asked.request.arguments(("wait", "async"))
    wait = 0.0 if flag(given, "async") else seconds(given, "wait", settings.wait, settings.max_wait)
    found = context.tasks.find(asked.name, caller.scopes)  # before anything is read for it
    body = read_call((yield from read_json(context, asked)))
    client = app.client
    task, message = found.task, found.message(client, body, rules(context, asked))
    key = asked.request.headers.get("idempotency-key")
    request = Request(key, caller.name, [body.options])
    repeat = mark([message], request, app.engine.broker.features, settings.idempotency)
    make_private(app, [message])
    with on_behalf_of(caller.name):
        result: AsyncResult[object] = yield Step(
            lambda: client.send(task, message), lambda: client.asend(task, message)
        )
    task_id, here = result.id, links(asked)
    if repeat is not None:
        repeat.check([task_id])
    place = address(here, task_id)
    location = {"location": place}
    if wait and caller.scopes.may(READ):
        yield until_end(result, wait)
        try:
            report: Report = yield reported(result)
            if report.state.terminal:
                return answer_json(200, shown(app, report, here, caller.scopes.may(INSPECT)), location)
        except (PenstockError, Refused) as error:  # of the look: the call was accepted, and must not seem refused
            log.warning("task %s was accepted, and could not be looked at: %s", task_id, error)
    return answer_json(202, accepted(task_id, place), location)


def accepted(task_id: str, place: str) -> dict[str, object]:
    """A task that was just published, and is looked at in this place."""
    return {
        "id": task_id,
        "state": "PENDING",
        "links": links_of(place),
    }
